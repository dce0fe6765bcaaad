"""Where the members of a family live, as the targets that it is made of do."""

from collections.abc import Sequence

import torch

from diffsampler.errors import InputError
from diffsampler.families.family import Family
from diffsampler.fingerprint import describe
from diffsampler.target import Target, space_of, support_of

PROBES = (-1.5, -0.3, 0.7, 2.0)  # in coordinates that go anywhere


def check_places(name: str, targets: Sequence[Target]) -> None:
    """Raise InputError unless targets live in one place, and are dense there in no coordinates of their own.

    Arguments:
        name: of the family.
        targets: one at least.
    """
    for target in targets:
        if not isinstance(target, Target):
            raise InputError(f"{name} is made of targets, got {type(target).__name__}.")
        if isinstance(target, Family):
            raise InputError(f"{name} is made of single densities, and {type(target).__name__} is a family.")
        if target.coordinates is not None:
            raise InputError(
                f"{name} is for densities on R^D, or on a support or a space that they declare, but "
                f"{type(target).__name__} declares coordinates of its own."
            )
    if len(dims := {target.dim for target in targets}) > 1:
        raise InputError(f"targets must have the same dimension, got {sorted(dims)}.")
    if len(spaces := {describe(space_of(target)) for target in targets}) > 1:
        raise InputError(f"{name} is for densities on one space, got {' and '.join(sorted(spaces))}.")
    if not all(_is_alike(targets[0], target) for target in targets):
        raise InputError(
            f"{name} is for densities with one support, but those of {type(targets[0]).__name__} have several: let "
            "log_prob return -inf outside of each, or write it in coordinates that go anywhere."
        )


def settle(family: Family, target: Target) -> None:
    """Let a family live where a target does, and be shown as it is."""
    space = space_of(target)
    # Real fields on a lattice are numbers in R^D, which bend with the context.
    is_plain = space.is_euclidean and space.dim == target.dim
    family.support, family.space = target.support, None if is_plain else space
    family.plot_range, family.plot_coordinates = target.plot_range, target.plot_coordinates


def _is_alike(first: Target, second: Target) -> bool:
    """Whether both declare the same support: bounds that depend on a context move points of y elsewhere."""
    one, other = support_of(first), support_of(second)
    if one is None or other is None:
        return one is other
    y = torch.tensor(PROBES, dtype=torch.float64).unsqueeze(-1).expand(-1, first.dim)
    return torch.equal(one.forward(y)[0], other.forward(y)[0])
