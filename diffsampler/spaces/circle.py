"""Angles."""

import torch
from torch import Tensor

from diffsampler.spaces.base import Space
from diffsampler.spaces.kernels import WrappedGaussianKernel, wrap


class Circle(Space):
    """D angles in [-pi, pi), with normal noise wound around."""

    is_periodic = True

    def kernel(self, mean: Tensor, std: Tensor) -> WrappedGaussianKernel:
        return WrappedGaussianKernel(mean, std)

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([x.sin(), x.cos()], -1)

    def features_of_each(self, x: Tensor, scale: Tensor) -> Tensor:
        return torch.stack([x.sin(), x.cos()], -1)

    def wrap(self, x: Tensor) -> Tensor:
        return wrap(x)
