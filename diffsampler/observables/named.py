"""Observables by name: those that a target offers, those of its kind of space, and functions in files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from math import prod

from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.observables.cumulants import HeatCapacity, Susceptibility
from diffsampler.observables.of_spaces import absolute_magnetisation, energy, histograms_of, magnetisation
from diffsampler.observables.trial import try_observable
from diffsampler.spaces import Lattice, Links
from diffsampler.target import Target

Observables = dict[str, Callable[[Tensor], Tensor]]


def observables_of(target: Target) -> Observables:
    """All observables that have a name: of any target, of its kind of space, and its own, which come first."""
    own, of_target = dict(target.observables), energy(target)
    found: Observables = {"energy": of_target, "heat_capacity": HeatCapacity(of_target)}
    space = target.space
    if isinstance(space, Lattice) and not isinstance(space, Links):  # what a gauge transformation changes has no mean
        m = partial(magnetisation, space=space)
        found["magnetisation"] = m
        found["absolute_magnetisation"] = partial(absolute_magnetisation, space=space)
        found["susceptibility"] = Susceptibility(m, prod(space.shape))
    found.update(histograms_of(space))
    return {**own, **{name: f for name, f in found.items() if name not in own}}


def find_observables(
    target: Target, asked: Mapping[str, Callable[[Tensor], Tensor]] | Sequence[str] | None = None, tried: bool = False
) -> Observables:
    """What is asked for, by name.

    Arguments:
        target: the density.
        asked: functions by name; or names, each of `observables_of`, or the dotted path of a function that can be
            imported, such as "my_file.f"; None for all that the target offers by itself.
        tried: whether to ask those that are not the library's at a few made-up points, before anything is spent.

    Raises:
        InputError: if a name is none, or what it names is no function, or one of another shape.
    """
    found = _found(target, asked)
    if tried:
        of_library = {} if isinstance(asked, Mapping) else observables_of(target).keys() - target.observables.keys()
        for name, observable in found.items():
            if name not in of_library:
                try_observable(name, observable, target)
    return found


def _found(target: Target, asked: Mapping[str, Callable[[Tensor], Tensor]] | Sequence[str] | None) -> Observables:
    if asked is None:
        return dict(target.observables)
    if isinstance(asked, Mapping):
        for name, f in asked.items():
            if not isinstance(name, str) or not callable(f):
                raise InputError(f"observables must be functions by name, got {f!r} as {name!r}.")
        return dict(asked)
    if isinstance(asked, str) or not isinstance(asked, Sequence) or not all(isinstance(name, str) for name in asked):
        raise InputError(f"observables must be functions by name, or a list of names, got {asked!r}.")
    known = observables_of(target)
    return {name: known[name] if name in known else _imported(name, known) for name in asked}


def _imported(name: str, known: Observables) -> Callable[[Tensor], Tensor]:
    module, _, last = name.rpartition(".")
    accepted = f"Accepted: {', '.join(known)}, or the dotted path of a function of yours, such as my_file.f."
    if not module:
        raise InputError(f"observables: unknown name {name!r}. {accepted}")
    try:
        found = getattr(import_module(module), last)
    except Exception as error:  # whatever a file of the user's raises
        raise InputError(f"observables: cannot use {name!r}: {type(error).__name__}: {error}. {accepted}") from error
    if not callable(found):
        raise InputError(f"observables: {name!r} must be a function of x, got {found!r:.80}.")
    return found
