"""What annotations say of arguments: types of plain values, and families of classes."""

import inspect
from collections import abc
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor

# By name; those of a group by their names in it.
Parameters = dict[str, "inspect.Parameter | Parameters"]

PLAIN = {bool: bool, int: int, float: (int, float), str: str, NoneType: NoneType}
MANY = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
NO_FAMILIES = {*PLAIN, Tensor, dict, object, Any}  # Any is a class from Python 3.11 on


def parameters_of(function: Callable, skip: int = 0) -> Parameters:
    """The parameters of a function or class, but for the first `skip`, with annotations that are no strings."""
    try:
        hints = get_type_hints(function.__init__ if isinstance(function, type) else function)
    except Exception:  # annotations of a user's own may name what is not there
        hints = {}
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters) and isinstance(function, type)
    found = parameters_of(function.__mro__[1], skip) if rest else {}  # what is handed on to the parent
    return found | {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in parameters if p.kind not in MANY}


def members(annotation: Any) -> Iterator[Any]:
    """The types of a union, one by one."""
    if get_origin(annotation) in {Union, UnionType}:
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def is_list(member: Any) -> bool:
    """Whether a type is that of lists of something."""
    return get_origin(member) in {list, tuple, abc.Sequence, abc.Iterable}


def fits(value: Any, member: Any) -> bool:
    """Whether a value is of this type; none is of a list or a class, which are looked into."""
    if member in PLAIN:
        return isinstance(value, PLAIN[member]) and (member is bool or not isinstance(value, bool))
    if get_origin(member) is Literal:
        return value in get_args(member)
    return not is_list(member) and member is not Tensor and family_of(member)[0] is None


def in_words(member: Any) -> str:
    """A type, "" where a command line cannot give it, or need not be told."""
    if is_list(member):
        return f"a list of {in_words(get_args(member)[0])}"
    if get_origin(member) is Literal:
        return " or ".join(map(repr, get_args(member)))
    return "" if member in {NoneType, Tensor} else getattr(family_of(member)[0] or member, "__name__", str(member))


def family_of(annotation: Any) -> tuple[type | None, bool]:
    """The base class of what an argument takes, and whether it is made later, of what it belongs to."""
    types = list(members(annotation))
    made = [get_args(member)[-1] for member in types if get_origin(member) is abc.Callable]
    ready = [member for member in types if isinstance(member, type) and member not in NO_FAMILIES]
    found = [each for each in [*made, *ready] if isinstance(each, type) and get_origin(each) is None]
    return (found[0], bool(made)) if found else (None, False)
