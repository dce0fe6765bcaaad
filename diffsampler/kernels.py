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

    @abstractmethod
    def widened(self, log_scale: Tensor) -> "Kernel":
        """The kernel whose standard deviations are exp(log_scale) times as large, for log_scale with shape (*, D)."""


class GaussianKernel(Kernel):
    """N(mean, diag(std^2)); where `std` is 0, a Dirac at the mean, whose log-density counts as 0.

    Arguments:
        mean: with shape (*, D).
        std: broadcasts against `mean`: (), (D), (T, 1, 1) in the batched pass, or (*, D) where it is learned. In
            float64 wherever it is small, and then so are log-densities.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean = mean
        self.std = std

    def rsample(self, generator: torch.Generator | None = None, noise_scale: float = 1.0) -> Tensor:
        mean = self.mean
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return torch.addcmul(mean, noise, self.std.to(mean.dtype), value=noise_scale)

    def log_prob(self, y: Tensor) -> Tensor:
        dirac = self.std == 0
        # In the dtype of the standard deviation: a normaliser rounded to float32 is the same error in every weight.
        precision = torch.where(dirac, 0.0, 1 / self.std)
        log_normaliser = torch.where(dirac, 0.0, self.std.log() + HALF_LOG_TWO_PI)
        log_normaliser = log_normaliser.expand(*self.std.shape[:-1], y.shape[-1]).sum(-1)
        scaled = (y - self.mean) * precision.to(y.dtype)
        return -0.5 * scaled.square().sum(-1) - log_normaliser

    def widened(self, log_scale: Tensor) -> "GaussianKernel":
        return GaussianKernel(self.mean, self.std.to(log_scale.dtype) * log_scale.exp())
