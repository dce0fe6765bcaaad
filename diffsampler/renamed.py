"""Names that have changed, and names that are misspelt: which one may be meant."""

import difflib
import inspect
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, TypeVar

from diffsampler.errors import InputError

Function = TypeVar("Function", bound=Callable)

RENAMED = {
    "drift": "control",
    "backward_drift": "backward_control",
    "width": "scale",
    "n": "num_samples",
    "Drift": "Control",
    "LangevinDrift": "LangevinControl",
    "CoordinatewiseDrift": "CoordinatewiseControl",
    "PeriodicMLP": "FourierMLP",
    "PeriodicFlow": "FourierFlow",
    "Flow": "StateFlow",
    "Loss": "Objective",
}


def names_meant(name: str, accepted: Collection[str]) -> list[str]:
    """What an old name is called now; else the names that are spelt like it, the nearest first."""
    new = RENAMED.get(name)
    if new in accepted:
        return [new]
    in_small = {one.lower(): one for one in accepted}
    near = difflib.get_close_matches(name, accepted)
    return near or [in_small[one] for one in difflib.get_close_matches(name.lower(), in_small)]


def knows_old_names(function: Function) -> Function:
    """Refuse arguments of a method by their old names, with the new ones."""
    accepted = inspect.signature(function).parameters

    @wraps(function)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in kwargs.keys() & RENAMED.keys() - accepted.keys():
            if RENAMED[name] in accepted:
                where = function.__qualname__.removesuffix(".__init__")
                raise InputError(f"{where} has no argument {name!r}: it is called {RENAMED[name]} now.")
        return function(self, *args, **kwargs)

    return checked


def missing_name(module: str, accepted: Collection[str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module, some of whose names were others before."""

    def __getattr__(name: str) -> Any:
        new = RENAMED.get(name)
        if new in accepted:
            # Not AttributeError: `from ... import` would leave out what it says.
            raise ImportError(f"{module} has no {name}: it is called {new} now.")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
