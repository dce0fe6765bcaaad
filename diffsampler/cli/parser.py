"""The parser of arguments, jsonargparse's, and the making of classes: what is wrong is said in one line."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from diffsampler.cli.annotations import Parameters
from diffsampler.cli.given import given
from diffsampler.cli.mistakes import find_mistake, innermost, said_by
from diffsampler.coordinates import Coordinates
from diffsampler.errors import InputError
from diffsampler.networks import Control, StateFlow
from diffsampler.priors import Prior
from diffsampler.processes import Process

MADE_LATER = (Process, Prior, Control, StateFlow, Coordinates)  # of what they belong to, their first parameter


class Parser(LightningArgumentParser):
    """Raises InputError. The parsers of nested classes are of this type too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A mistyped option that begins like another one is a mistake, not that one.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        raise InputError(message) from ex


@contextmanager
def in_one_line(args: Sequence[str], parameters: Parameters) -> Iterator[None]:
    """Raise InputError, in one line, where these arguments cannot be parsed."""
    try:
        yield
    except Exception as error:
        found, tree = None, {}
        for tree in given(args):
            found = found or find_mistake("", tree, parameters, complete=False)
        found = found or find_mistake("", tree, parameters, complete=True)
        if not found and not isinstance(error, InputError):
            raise
        raise InputError(found or innermost(error)) from error


class Maker:
    """Makes objects of the classes that are named, and remembers why one could not be made.

    jsonargparse tries one type of a union after the other, and reports them all.
    """

    def __init__(self) -> None:
        self.failure: InputError | None = None

    def __call__(self, made: type, *args: Any, **kwargs: Any) -> Any:
        # A parameter with neither annotation nor default is None to jsonargparse, whether it is given or not.
        bare = [p.name for p in inspect.signature(made).parameters.values() if p.annotation is p.default is p.empty]
        missing = [name for name in bare if name in kwargs and kwargs[name] is None]
        if issubclass(made, MADE_LATER) and missing[:1] == bare[:1] != []:
            del kwargs[missing.pop(0)]
            if not args:
                return partial(self, made, **kwargs)
        try:
            if missing:
                raise InputError(f"{made.__name__} needs a value of {', '.join(missing)}.")
            return made(*args, **kwargs)
        except InputError as error:
            self.failure = error
            raise
        except Exception as error:
            is_refused = error.__traceback__.tb_next is None  # dict_kwargs, say, which no parser looks into
            if made.__module__.partition(".")[0] in {"diffsampler", "targets"} and not is_refused:
                raise
            reason = error if is_refused else f"it raises {said_by(error)}"
            self.failure = InputError(f"{made.__name__} cannot be made: {reason}.")
            raise self.failure from error
