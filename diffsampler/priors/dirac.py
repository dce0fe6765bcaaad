"""A single point."""

import torch
from torch import Tensor

from diffsampler.priors.base import Prior


class DiracPrior(Prior):
    """All mass at the origin."""

    reparametrised = True
    is_point = True

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.zeros_like(like)

    def log_prob(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])

    def score(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)
