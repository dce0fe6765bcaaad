"""log p(x) of a model with two latents, by quadrature."""

import math

import torch
from torch import Tensor, nn

from examples.latent_variables.decoders import Decoder, log_prior

CHUNK = 8192  # points of the grid that are decoded at once


def grid(half_width: float, num_points: int) -> Tensor:
    """The middles of num_points^2 equal cells of a square around 0, with shape (num_points^2, 2)."""
    cell = 2 * half_width / num_points
    middle = -half_width + cell * (torch.arange(num_points) + 0.5)
    return torch.cartesian_prod(middle, middle)


@torch.no_grad()
def exact_log_likelihood(decoder: Decoder, x: Tensor, half_width: float = 6.0, num_points: int = 300) -> Tensor:
    """log p(x) of each row, float64, with shape (n), for data with shape (n, D).

    Midpoints of a smooth density that vanishes at the edges converge faster than any power of the cell's size; ask for
    more points and a wider square to see whether they have.
    """
    total = torch.full((len(x),), -torch.inf, dtype=torch.float64)
    for z in grid(half_width, num_points).split(CHUNK):
        log_joint = log_prior(z)[:, None] + decoder.log_likelihood_of_pairs(z, x)
        total = torch.logaddexp(total, log_joint.double().logsumexp(0))
    return total + 2 * math.log(2 * half_width / num_points)


class Quadrature(nn.Module):
    """A decoder that is trained by log p(x) itself: what an E-step without error gives, where there are two latents.

    Arguments:
        decoder: p(x | z).
        num_points: of a line of the grid.
    """

    half_width = 5.0

    def __init__(self, decoder: Decoder, num_points: int) -> None:
        super().__init__()
        self.decoder, self.num_points = decoder, num_points

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Of a grid that is moved at random: a decoder trained on one grid would learn to be large at its points."""
        cell = 2 * self.half_width / self.num_points
        z = grid(self.half_width, self.num_points) + cell * (torch.rand(2, generator=generator) - 0.5)
        log_joint = log_prior(z)[:, None] + self.decoder.log_likelihood_of_pairs(z, x)
        return -log_joint.logsumexp(0).mean() - 2 * math.log(cell)
