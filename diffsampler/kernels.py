"""Transition densities as objects: nobody else in the library writes a Gaussian density by hand.

Letters: T steps, B trajectories, D dimensions, `*` any leading shape.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["GaussianKernel", "Kernel"]

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Kernel(ABC):
    """A distribution of the next state, one for each state of a batch."""

    @abstractmethod
    def rsample(self, generator: torch.Generator | None = None, noise_scale: float = 1.0) -> Tensor:
        """One draw for each state, with shape (*, D).

        `noise_scale` widens the noise and leaves the mean (exploration).
        """

    @abstractmethod
    def log_prob(self, y: Tensor) -> Tensor:
        """The log-density of y, with shape (*), for y with shape (*, D)."""


class GaussianKernel(Kernel):
    """N(mean, diag(std^2)); where `std` is 0, a Dirac at the mean, whose log-density counts as 0.

    Arguments:
        mean: with shape (*, D).
        std: broadcasts against `mean`: (), (D), or (T, 1, 1) in the batched pass.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean = mean
        self.std = std

    def rsample(self, generator: torch.Generator | None = None, noise_scale: float = 1.0) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return torch.addcmul(self.mean, noise, self.std, value=noise_scale)

    def log_prob(self, y: Tensor) -> Tensor:
        dirac = self.std == 0
        precision = torch.where(dirac, 0.0, 1 / self.std)
        log_normaliser = torch.where(dirac, 0.0, self.std.log() + HALF_LOG_TWO_PI)
        log_normaliser = log_normaliser.expand(*self.std.shape[:-1], y.shape[-1]).sum(-1)
        return -0.5 * ((y - self.mean) * precision).square().sum(-1) - log_normaliser
