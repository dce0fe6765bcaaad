"""Where the members of a family live, as the targets that it is made of do."""

from collections.abc import Sequence

import torch

from diffsampler.errors import InputError
from diffsampler.families.family import Family
from diffsampler.target import Target, space_of, support_of

PROBES = (-1.5, -0.3, 0.7, 2.0)  # in coordinates that go anywhere


def check_places(name: str, targets: Sequence[Target]) -> None:
    """Raise InputError unless targets live in one place that families are for: R^D, or a support that they declare.

    Arguments:
        name: of the family.
        targets: one at least.
    """
    for target in targets:
        if not isinstance(target, Target):
            raise InputError(f"{name} is made of targets, got {type(target).__name__}.")
    for target in targets:
        space = space_of(target)
        if not space.is_euclidean or space.dim != target.dim or target.coordinates is not None:
            what = "coordinates of its own" if target.coordinates is not None else f"the space {space!r}"
            raise InputError(
                f"{name} is for densities on R^D, or on a support that they declare, but {type(target).__name__} "
                f"declares {what}."
            )
    if len(dims := {target.dim for target in targets}) > 1:
        raise InputError(f"targets must have the same dimension, got {sorted(dims)}.")
    if not all(_is_alike(targets[0], target) for target in targets):
        raise InputError(
            f"{name} is for densities with one support, but those of {type(targets[0]).__name__} have several: let "
            "log_prob return -inf outside of each, or write it in coordinates that go anywhere."
        )


def settle(family: Family, target: Target) -> None:
    """Let a family live where a target does, and be shown as it is."""
    family.support = target.support
    family.plot_range, family.plot_coordinates = target.plot_range, target.plot_coordinates


def _is_alike(first: Target, second: Target) -> bool:
    """Whether both declare the same support: bounds that depend on a context move points of y elsewhere."""
    one, other = support_of(first), support_of(second)
    if one is None or other is None:
        return one is other
    y = torch.tensor(PROBES, dtype=torch.float64).unsqueeze(-1).expand(-1, first.dim)
    return torch.equal(one.forward(y)[0], other.forward(y)[0])
