"""All directions alike."""

import math

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.priors.base import Prior
from diffsampler.spaces import Space
from diffsampler.spaces.kernels import uniform_like


class UniformPrior(Prior):
    """The uniform density on angles.

    Arguments:
        space: a `Circle`.
    """

    reparametrised = True

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        if not self.space.is_periodic:
            raise InputError(f"space must be a Circle, where a uniform density can be normalised, got {space!r}.")

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return (2 * uniform_like(like, generator) - 1) * math.pi

    def log_prob(self, x: Tensor) -> Tensor:
        return x.new_full(x.shape[:-1], -x.shape[-1] * math.log(2 * math.pi), dtype=torch.float64)

    def score(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)
