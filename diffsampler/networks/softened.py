"""Scores that come to an end: what a control can take of a target's own forces, cores and walls included."""

from torch import Tensor

SOFTENED_AT = 5.0  # times the size of a control: beyond what any diffused density asks for


def softened(force: Tensor, most: Tensor) -> Tensor:
    """Vectors, with shape (*, n, k), as they are where they are short, and never longer than `most`; NaN counts as 0.

    Equivariant under rotations of them.
    """
    share = force.nan_to_num(0.0) / most
    return most * share * (1 + share.square().sum(-1, keepdim=True)).rsqrt()
