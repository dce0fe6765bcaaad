"""Command-line mistakes in one line: which argument, what was given, what is accepted.

jsonargparse reports a mistake as a tree of everything it tried. This module keeps the branch that the user can act
on.
"""

import re
from collections.abc import Iterator

from diffsampler.baseline.mcmc import MarkovChain
from diffsampler.behaviours import Behaviour, LocalSearch, Priority
from diffsampler.coordinates import Coordinates
from diffsampler.losses import Objective
from diffsampler.networks import Control, StateFlow
from diffsampler.priors import Prior
from diffsampler.processes import NoiseSchedule, Process
from diffsampler.processes.grids import Grid
from diffsampler.target import Target

__all__ = ["shorten"]

FAMILIES = {
    "target": Target,
    "process": Process,
    "control": Control,
    "flow": StateFlow,
    "grid": Grid,
    "coordinates": Coordinates,
    "loss": Objective,
    "behaviour": Behaviour,
    "backward_control": Control,
    "prior": Prior,
    "schedule": NoiseSchedule,
    "source": Behaviour,
    "priority": Priority,
    "search": LocalSearch,
    "chain": MarkovChain,
}

KEY = re.compile(r'Parser key "([^"]+)"')
CALLABLE = re.compile(r"Type collections\.abc\.Callable\[.*\] expects a function or a callable class: ")
NAMESPACE = re.compile(r"\.? Got value: (Namespace\(.*|None)$", re.MULTILINE)
OPTION = re.compile(r"Option '([^']+)' is not accepted; accepted are ([^.]*)\.")
NESTED = re.compile(r"NestedArg\(key='([^']+)'")
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
BROKEN_PATH = re.compile(r"Problem with given class_path '([^']+)':\s*\n\s*(.+)")
SUBTYPES = re.compile(r"Subtypes: \[(.+)\]$", re.MULTILINE)
EXPECTED = re.compile(r"Expected an? (<class '[\w.]+'>)")
GIVEN = re.compile(r"(?:Got value|Given value): (.+)")
THEIRS = re.compile(
    r"(Expected|Does not validate|Subtypes|Errors|Given value|Problem with|No module|Unexpected|Not a valid|Subclass|a "
    r"|$)"
)
NOT_OF_THE_LINE = {"NoneType", "Tensor"}  # what a command line cannot give, or need not be told


def shorten(message: str) -> str:
    """One line that says what the message of jsonargparse says."""
    keys = KEY.findall(message)
    if not keys and "Union subtypes" not in message:
        return re.sub(r"\s*\n\s*", " ", message.strip())
    where = ".".join(keys)
    # The innermost argument is the one at fault; what surrounds it repeats its value.
    text = NAMESPACE.sub("", CALLABLE.sub("", KEY.split(message)[-1]))
    return f"{where}: {_reason(text, keys)}" if where else _reason(text, keys)


def _reason(text: str, keys: list[str]) -> str:
    if match := OPTION.search(text):
        accepted = f"accepted are {match[2]}" if match[2] else "it takes no arguments"
        return f"Option {match[1]!r} is not accepted; {accepted}."
    if ("is abstract" in text or "must include a class_path" in text) and (match := NESTED.search(text)):
        return f"name a class before its argument {match[1]!r}.{_accepted(keys)}"
    if (match := BROKEN_PATH.search(text)) and _accepted(keys):
        return f"cannot use {match[1]!r}: {match[2].strip().rstrip('.')}.{_accepted(keys)}"
    if "but got None" in text:
        return f"must name a class, got null.{_accepted(keys)}"
    if (match := UNKNOWN_CLASS.search(text)) and _accepted(keys):
        return f"unknown name {match[1]!r}.{_accepted(keys)}"
    if own := _own_words(text):
        return own
    subtypes = SUBTYPES.findall(text)
    types = [_plain_type(part) for part in (subtypes[-1].split(", ") if subtypes else EXPECTED.findall(text))]
    types = [name for name in dict.fromkeys(types) if name not in NOT_OF_THE_LINE]
    if types and (given := GIVEN.search(text)):
        value = NESTED.sub("", given[1]).removeprefix(", val=").rstrip(")") if "NestedArg" in given[1] else given[1]
        return f"expected {' or '.join(types)}, got {value.strip().strip(chr(39))!r}."
    return re.sub(r"\s*\n[\s-]*", "; ", text.lstrip(": \n-").strip())


def _plain_type(text: str) -> str:
    """`<class 'float'>` and `collections.abc.Sequence[float]` in words."""
    if match := re.match(r"(?:list|collections\.abc\.Sequence)\[(.+)\]$", text):
        return f"a list of {_plain_type(match[1])}"
    return re.sub(r"<class '([\w.]+)'>", r"\1", text).rsplit(".", 1)[-1]


def _own_words(text: str) -> str | None:
    """The line that a check of this library wrote, if there is one."""
    for line in text.splitlines()[1:]:
        line = line.strip().removeprefix("- ")
        if THEIRS.match(line) is None:
            return line
    return None


def _accepted(keys: list[str]) -> str:
    """The classes that the last argument takes, if it takes classes."""
    names = ".".join(keys).split(".")
    # A wrapper's `network` is of the family of the wrapper.
    family = FAMILIES.get(next((name for name in reversed(names) if name != "network"), ""))
    if family is None:
        return ""
    shipped = sorted({subclass.__name__ for subclass in _subclasses(family) if _is_shipped(subclass)})
    example = f"my_file.My{family.__name__}"
    return f" Accepted: {', '.join(shipped)}, or the dotted path of a class of yours, such as {example}."


def _subclasses(family: type) -> Iterator[type]:
    for subclass in family.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _is_shipped(subclass: type) -> bool:
    # The library's own targets wrap functions or other targets, which a command line cannot give.
    package = "targets" if issubclass(subclass, Target) else "diffsampler"
    return subclass.__module__.split(".")[0] == package and not getattr(subclass, "__abstractmethods__", None)
