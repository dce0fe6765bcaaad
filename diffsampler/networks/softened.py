"""Scores that come to an end: what a control can take of a target's own forces, cores and walls included."""

from torch import Tensor

SOFTENED_AT = 5.0  # times the size of a control: beyond what any diffused density asks for

LARGEST = (1e30, -1e30)  # of what is infinite


def softened(force: Tensor, most: Tensor) -> Tensor:
    """Vectors, with shape (*, n, k), as they are where they are short, and never longer than `most`; NaN counts as 0.

    Equivariant under rotations of them.
    """
    force = force.nan_to_num(0.0, *LARGEST) / most
    longest = force.abs().amax(-1, keepdim=True).clamp(min=1.0)  # of cores, squares overflow
    share = force / longest
    return most * share * (longest**-2 + share.square().sum(-1, keepdim=True)).rsqrt()
