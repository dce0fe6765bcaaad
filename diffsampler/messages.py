"""Command-line mistakes in one line: which argument, what was given, what is accepted.

jsonargparse reports a mistake as a tree of everything it tried. This module keeps the branch that the user can act
on.
"""

import re
from collections.abc import Iterator

from diffsampler.behaviours import Behaviour
from diffsampler.coordinates import AffineCoordinates
from diffsampler.grids import Grid
from diffsampler.losses import Loss
from diffsampler.networks import Drift, Flow
from diffsampler.processes import Process
from diffsampler.target import Target

__all__ = ["shorten"]

FAMILIES = {
    "target": Target,
    "process": Process,
    "drift": Drift,
    "flow": Flow,
    "grid": Grid,
    "coordinates": AffineCoordinates,
    "loss": Loss,
    "behaviour": Behaviour,
}

KEY = re.compile(r'Parser key "([^"]+)"')
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
UNKNOWN_OPTION = re.compile(r"Option '[^']+' is not accepted.*")
BROKEN_PATH = re.compile(r"Problem with given class_path '([^']+)':\s*\n\s*(.+)")
EXPECTED = re.compile(r"Expected an? <class '([\w.]+)'>")
GIVEN = re.compile(r"(?:Got value|Given value): (.+)")


def shorten(message: str) -> str:
    """One line that says what the message of jsonargparse says."""
    match = KEY.search(message)
    if match is None and "Union subtypes" not in message:
        return re.sub(r"\s*\n\s*", " ", message.strip())
    key = match[1] if match else ""
    where = f"{key}: " if key else ""
    if match := UNKNOWN_OPTION.search(message):
        return f"{where}{match[0].strip()}"
    if match := BROKEN_PATH.search(message):
        return f"{where}cannot use {match[1]!r}: {match[2].strip()}.{_accepted(key)}"
    if reason := _own_words(message):
        return f"{where}{reason}"
    if match := UNKNOWN_CLASS.search(message):
        return f"{where}unknown name {match[1]!r}.{_accepted(key)}"
    types = [name.rsplit(".", 1)[-1] for name in EXPECTED.findall(message)]
    if types and (given := GIVEN.search(message)):
        return f"{where}expected {' or '.join(dict.fromkeys(types))}, got {given[1].strip()!r}."
    return where + re.sub(r"\s*\n[\s-]*", "; ", KEY.sub("", message).lstrip(": \n-").strip())


def _own_words(message: str) -> str | None:
    """The branch that a check of this library or an unknown option wrote: neither an expectation nor a value."""
    for line in message.splitlines()[1:]:
        line = line.strip().removeprefix("- ")
        if re.match(r"(Expected|Does not validate|Subtypes|Errors|Given value|Problem with|$)", line) is None:
            return line
    return None


def _accepted(key: str) -> str:
    """The classes that an argument takes, if it takes classes."""
    family = FAMILIES.get(key.rsplit(".", 1)[-1])
    if family is None:
        return ""
    names = sorted({subclass.__name__ for subclass in _subclasses(family) if _is_shipped(subclass)})
    return (
        f" Accepted: {', '.join(names)}, or the dotted path of a class of yours, such as my_file.My{family.__name__}."
    )


def _subclasses(family: type) -> Iterator[type]:
    for subclass in family.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _is_shipped(subclass: type) -> bool:
    shipped = subclass.__module__.split(".")[0] in {"diffsampler", "targets"}
    return shipped and not getattr(subclass, "__abstractmethods__", None) and subclass.__name__ != "FunctionTarget"
