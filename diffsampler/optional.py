"""Packages that are not installed with the library."""

from importlib import import_module
from types import ModuleType

from diffsampler.errors import InputError


def import_extra(module: str, user: str, extra: str) -> ModuleType:
    """A module of an extra.

    Arguments:
        module: its dotted name.
        user: what needs it, for the message.
        extra: which brings it.

    Raises:
        InputError: if it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{user} needs {module.partition('.')[0]}: pip install 'diffsampler[{extra}]'. The error is: {error}"
        ) from error
