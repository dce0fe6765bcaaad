"""Learned functions of time, linear between evenly spaced knots."""

import torch
from torch import Tensor, nn


def interpolate(values: Tensor, t: Tensor) -> Tensor:
    """The function with these values at the knots, at times t in [0, 1].

    Arguments:
        values: with shape (K + 1, D), at times 0, 1 / K, .., 1.
        t: with shape () or (*, 1), whose last axis stands for the D coordinates.

    Returns:
        With shape (D) or (*, D).
    """
    num_pieces = len(values) - 1
    position = (t.squeeze(-1) if t.ndim else t) * num_pieces
    left = position.floor().clamp(max=num_pieces - 1)
    index = left.long().unsqueeze(-1)  # of a single number indexing would ask the host
    at_left, at_right = values[index].squeeze(-2), values[index + 1].squeeze(-2)
    return torch.lerp(at_left, at_right, (position - left).unsqueeze(-1).to(values.dtype))


class Annealing(nn.Module):
    """An increasing function from 0 at time 0 to 1 at time 1: the inverse temperature of annealed densities.

    Arguments:
        num_pieces: between knots; every one rises by a learned share.
        learnable: whether training moves it off the straight line.
    """

    def __init__(self, num_pieces: int = 32, learnable: bool = True) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_pieces), learnable)

    def forward(self, t: Tensor) -> Tensor:
        """With shape (1) or (*, 1), for times t with shape () or (*, 1)."""
        rise = self.logits.softmax(0).cumsum(0)
        return interpolate(torch.cat([rise.new_zeros(1), rise]).unsqueeze(-1), t)
