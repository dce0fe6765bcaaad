"""Parts of a sampler, ready or to be made of what they belong to."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary, ref

from torch import nn

from diffsampler.errors import InputError, check_instance, in_one_line

Part = TypeVar("Part", bound=nn.Module)

_OWNERS: WeakKeyDictionary[nn.Module, ref] = WeakKeyDictionary()


def make_part(name: str, part: Part | Callable[..., Part], family: type[Part], given: object) -> Part:
    """A part that is ready, or what a factory makes.

    Arguments:
        name: of the argument.
        part: of the family, or a function of what is given, such as a class.
        family: the base class.
        given: what the part belongs to.

    Raises:
        InputError: if it is neither.
    """
    if isinstance(part, family):
        return check_initialised(name, part)
    where = f"one of {family.__module__.rpartition('.')[0]}"
    made = part.func if isinstance(part, partial) else part
    is_other = isinstance(made, type) and not issubclass(made, family)
    if isinstance(part, nn.Module) or not callable(part) or is_other:
        given = f"the class {made.__name__}" if is_other else in_one_line(part)[:80]
        raise InputError(f"{name} must be a {family.__name__}, {where}, or what makes one, got {given}.")
    try:
        inspect.signature(part).bind(given)
    except TypeError as error:
        called = getattr(made, "__name__", made)
        raise InputError(
            f"{name} must be made from one {type(given).__name__}, as {called}(...) is not: {error}."
        ) from error
    except ValueError:  # what is written in C may have no signature
        pass
    return check_initialised(name, check_instance(name, part(given), family, where))


def check_initialised(name: str, part: Part) -> Part:
    """Return a part whose class has initialised what it inherits.

    Raises:
        InputError: if it has not.
    """
    if isinstance(part, nn.Module) and "_parameters" not in vars(part):
        raise InputError(f"{name} {type(part).__name__} must call super().__init__(...) first in its own __init__.")
    return part


def twin(module: Part) -> Part:
    """A module with the same parts, each of which may be replaced in one and not in the other."""
    other = copy.copy(module)
    for name in ("_modules", "_parameters", "_buffers"):
        other.__dict__[name] = dict(other.__dict__[name])
    return other


def check_free(**parts: object) -> None:
    """Raise InputError if one of these, by the names of their arguments, is part of another sampler.

    Training one would change the other.
    """
    for name, part in parts.items():
        owner = _OWNERS.get(part) if isinstance(part, nn.Module) else None
        if owner is not None and owner() is not None:
            raise InputError(
                f"{name} {type(part).__name__} is part of another sampler, which training would change too: give its "
                f"class, or copy.deepcopy({name}) to go on from what it has learned."
            )


def take_parts(owner: nn.Module, *parts: object) -> None:
    """Remember whose parts these are."""
    for part in parts:
        if isinstance(part, nn.Module):
            _OWNERS[part] = ref(owner)
