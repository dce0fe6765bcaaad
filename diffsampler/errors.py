"""The one error that is the user's to fix, the checks that raise it, and a warning of what is not.

Every message names the argument, what was given and what is accepted, in one line: the command line prints it as it
is.
"""

import logging
import math
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import TypeVar

Part = TypeVar("Part")


class InputError(ValueError):
    """An argument, a configuration or a target that cannot be used as given."""


def warn_of(what: str, error: Exception) -> None:
    """Warn in one line of what has failed, where work goes on without; the traceback goes to the debug log."""
    first_line = str(error).strip().partition("\n")[0]
    warnings.warn(f"{what}: {first_line[:300]}", stacklevel=3)
    logging.getLogger(__name__).debug(what, exc_info=error)


def in_one_line(value: object) -> str:
    """What was given, as it shows itself; modules of torch do so in several lines."""
    return " ".join(repr(value).split())


def check_count(name: str, value: int, minimum: int = 1) -> int:
    """Return `value` if it is a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise InputError(f"{name} must be a whole number of at least {minimum}, got {in_one_line(value)}.")
    return int(value)


def check_flag(name: str, value: bool) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {in_one_line(value)}.")
    return value


def check_positive(name: str, value: float | Sequence[float]) -> float | Sequence[float]:
    """Return `value` if it, or each of its entries, is positive and finite."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    for entry in plain if isinstance(plain, Sequence) else [plain]:
        if not (isinstance(entry, int | float) and 0 < entry < math.inf):
            raise InputError(f"{name} must be positive and finite, got {in_one_line(value)}.")
    return plain


def check_non_negative(name: str, value: float) -> float:
    """Return `value` if it is zero or positive, and finite."""
    if not (isinstance(value, int | float) and 0 <= value < math.inf):
        raise InputError(f"{name} must be at least 0 and finite, got {in_one_line(value)}.")
    return value


def check_instance(name: str, value: Part, family: type, example: str) -> Part:
    """Return `value` if it is an instance of `family`."""
    if not isinstance(value, family):
        given = f"the class {value.__name__}" if isinstance(value, type) else in_one_line(value)
        article = "an" if family.__name__[0] in "AEIO" else "a"
        raise InputError(f"{name} must be {article} {family.__name__}, such as {example}, got {given}.")
    return value
