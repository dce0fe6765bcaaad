"""Positions from any prior, and momenta."""

import torch
from torch import Tensor

from diffsampler.priors.base import Prior
from diffsampler.spaces import Euclidean
from diffsampler.spaces.kernels import GaussianKernel, noise_like


def log_momentum(momentum: Tensor) -> Tensor:
    """The log-density N(0, I) of momenta with shape (*, D), with shape (*)."""
    one = torch.ones((), dtype=torch.float64, device=momentum.device)
    return GaussianKernel(torch.zeros_like(momentum), one).log_prob(momentum)


class MomentumPrior(Prior):
    """States (x, p), with shape (*, 2 D): positions x from a prior, momenta p from N(0, I).

    Arguments:
        positions: the prior of x.
    """

    def __init__(self, positions: Prior) -> None:
        super().__init__(Euclidean(2 * positions.space.dim))
        self.positions = positions
        self.reparametrised = positions.reparametrised

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        x = self.positions.draw(like.chunk(2, -1)[0], generator)
        return torch.cat([x, noise_like(x, generator)], -1)

    def log_prob(self, x: Tensor) -> Tensor:
        position, momentum = x.chunk(2, -1)
        return self.positions.log_prob(position) + log_momentum(momentum)

    def score(self, x: Tensor) -> Tensor:
        position, momentum = x.chunk(2, -1)
        return torch.cat([self.positions.score(position), -momentum], -1)

    @property
    def std(self) -> Tensor:
        return self.positions.std
