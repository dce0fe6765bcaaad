"""Parts of a sampler, ready or to be made of what they belong to."""

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary, ref

from torch import nn

from diffsampler.errors import InputError, check_instance

__all__ = ["check_free", "make_part", "take_parts"]

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
        return part
    where = f"one of {family.__module__.rpartition('.')[0]}"
    if isinstance(part, nn.Module) or not callable(part):
        raise InputError(f"{name} must be a {family.__name__}, {where}, or what makes one, got {part!r:.80}.")
    return check_instance(name, part(given), family, where)


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
