"""Programs that are not installed with the library."""

from importlib import import_module
from types import ModuleType

from diffsampler.errors import InputError


def import_optional(module: str, user: str) -> ModuleType:
    """A module of the extra `molecules`.

    Arguments:
        module: its dotted name.
        user: what needs it, for the message.

    Raises:
        InputError: if it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise InputError(
            f"{user} needs {name}: pip install diffsampler[molecules], or {name} by itself. The error is: {error}"
        ) from error
