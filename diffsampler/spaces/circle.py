"""Angles."""

import math

import torch
from torch import Tensor

from diffsampler.spaces.base import Space, Symmetry
from diffsampler.spaces.kernels import WrappedGaussianKernel, other_turns, wrap


class Circle(Space):
    """D angles in [-pi, pi), with normal noise wound around."""

    is_periodic = True

    @property
    def symmetries(self) -> dict[str, Symmetry]:
        return {"angles go once around, by 2 pi": _once_around}

    def kernel(self, mean: Tensor, std: Tensor) -> WrappedGaussianKernel:
        return WrappedGaussianKernel(mean, std)

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([x.sin(), x.cos()], -1)

    def features_of_each(self, x: Tensor, scale: Tensor) -> Tensor:
        return torch.stack([x.sin(), x.cos()], -1)

    def wrap(self, x: Tensor) -> Tensor:
        return wrap(x)

    def seen_from(self, x: Tensor, end: Tensor, std: Tensor) -> Tensor:
        nearest = wrap(end - x)
        total, moved = 1.0, 0.0
        for turn, share in other_turns(nearest, (1 / std).to(x.dtype)):
            total, moved = total + share, moved + turn * share
        return x + nearest + moved / total


def _once_around(x: Tensor, generator: torch.Generator | None) -> Tensor:
    times = torch.randint(-1, 2, x.shape, generator=generator, device=x.device)
    return x + 2 * math.pi * times.to(x.dtype)
