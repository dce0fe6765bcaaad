"""Noise schedules of variance-preserving processes: how much of the target's signal is left at time t."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_positive


class NoiseSchedule(ABC):
    """A decreasing amount of noise from time 0, the prior, to time 1, the target."""

    @abstractmethod
    def log_signal(self, t: Tensor) -> Tensor:
        """The log of the factor on x_1 in x_t, float64, for times t with shape (*): 0 at time 1, increasing."""

    def log_decay(self, s: Tensor, t: Tensor) -> Tensor:
        """log a, for x_s = a x_t + noise: negative, for s < t."""
        return self.log_signal(s) - self.log_signal(t)


class LinearSchedule(NoiseSchedule):
    """Noise at a rate that falls linearly from `start` to `end`: -log_signal(t) = integral of the rate / 2 from t to 1.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2021, arXiv:2011.13456.

    Arguments:
        start: the rate at time 0; positive.
        end: the rate at time 1; positive.
    """

    def __init__(self, start: float = 20.0, end: float = 0.1) -> None:
        self.start = check_positive("start", start)
        self.end = check_positive("end", end)

    def log_signal(self, t: Tensor) -> Tensor:
        left = 1 - t
        return -0.5 * (self.end * left + 0.5 * (self.start - self.end) * left.square())


class CosineSchedule(NoiseSchedule):
    """The signal is a quarter of a cosine, cos(pi / 2 * reach * (1 - t)).

    References:
        Improved Denoising Diffusion Probabilistic Models, Nichol & Dhariwal, 2021, arXiv:2102.09672.

    Arguments:
        reach: in (0, 1); the nearer to 1, the less signal is left at time 0.
    """

    def __init__(self, reach: float = 0.99) -> None:
        if not 0 < reach < 1:
            raise InputError(f"reach must be above 0 and below 1, got {reach!r}.")
        self.reach = reach

    def log_signal(self, t: Tensor) -> Tensor:
        return torch.cos(0.5 * math.pi * self.reach * (1 - t)).log()
