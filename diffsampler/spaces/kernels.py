"""Transition densities as objects.

Letters: T steps, B trajectories, D dimensions, `*` any leading shape.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of x."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def uniform_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform noise in [0, 1) of the shape, dtype and device of x."""
    return torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)


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
        noise = noise_like(self.mean, generator)
        return torch.addcmul(self.mean, noise, self.std.to(noise.dtype), value=noise_scale)

    def log_prob(self, y: Tensor) -> Tensor:
        # In the dtype of the standard deviation: a normaliser rounded to float32 is the same error in every weight.
        if self.std.device.type == "cpu" and self.std.all():  # elsewhere to ask costs more than what it saves
            precision, log_normaliser = 1 / self.std, self.std.log() + HALF_LOG_TWO_PI
        else:
            dirac = self.std == 0
            std = torch.where(dirac, 1.0, self.std)  # where gradients are finite, too
            precision = torch.where(dirac, 0.0, 1 / std)
            log_normaliser = torch.where(dirac, 0.0, std.log() + HALF_LOG_TWO_PI)
        log_normaliser = log_normaliser.expand(*self.std.shape[:-1], y.shape[-1]).sum(-1)
        scaled = (y - self.mean) * precision.to(y.dtype)
        return -0.5 * scaled.square().sum(-1) - log_normaliser

    def around(self, mean: Tensor) -> "GaussianKernel":
        """The same noise around another mean."""
        return type(self)(mean, self.std)

    def widened(self, log_scale: Tensor) -> "GaussianKernel":
        return GaussianKernel(self.mean, self.std * log_scale.double().exp())


# Turns counted on either side: exact to 1e-8 for standard deviations up to the widest allowed.
NUM_TURNS, MAX_WRAPPED_STD = 3, 3.0
FAINTEST = -80.0  # log of what is added to 1 or to 0: on a CPU, exp takes ten times as long where it underflows


def wrap(x: Tensor) -> Tensor:
    """Angles in [-pi, pi)."""
    return torch.remainder(x + math.pi, 2 * math.pi) - math.pi


def other_turns(difference: Tensor, precision: Tensor) -> Iterator[tuple[float, Tensor]]:
    """All turns but the nearest, and how likely normal noise took them, as a share of the nearest.

    One after the other: all at once they would be six times as many numbers as there are.

    Arguments:
        difference: angles in [-pi, pi), with shape (*, D).
        precision: one over the noise's standard deviation; broadcasts against `difference`.
    """
    half = -0.5 * precision.square()
    for k in range(1, NUM_TURNS + 1):
        for turn in (-2 * math.pi * k, 2 * math.pi * k):
            # (d + turn)^2 = d^2 + turn (turn + 2 d)
            yield turn, (half * (turn * turn + 2 * turn * difference)).clamp(min=FAINTEST).exp()


class WrappedGaussianKernel(GaussianKernel):
    """A Gaussian wound around the circle, in every coordinate: angles in [-pi, pi).

    Arguments:
        mean: with shape (*, D).
        std: positive, at most 3; broadcasts against `mean`.
    """

    def rsample(self, generator: torch.Generator | None = None, noise_scale: float = 1.0) -> Tensor:
        return wrap(super().rsample(generator, noise_scale))

    def log_prob(self, y: Tensor) -> Tensor:
        precision = (1 / self.std).to(y.dtype)
        difference = wrap(y - self.mean)
        nearest = -0.5 * (difference * precision).square()
        exponent = nearest + sum(share for _, share in other_turns(difference, precision)).log1p()
        log_normaliser = (self.std.log() + HALF_LOG_TWO_PI).expand(*self.std.shape[:-1], y.shape[-1]).sum(-1)
        return exponent.sum(-1) - log_normaliser

    def widened(self, log_scale: Tensor) -> "WrappedGaussianKernel":
        return WrappedGaussianKernel(self.mean, (self.std * log_scale.double().exp()).clamp(max=MAX_WRAPPED_STD))


class MomentumKernel(Kernel):
    """A Gaussian of the momentum, and a position that follows: states (x, p), with shape (*, 2 D).

    Forwards, p' ~ N(mean, std^2) and x' = x + step p'. Backwards, x = x' - step p' and p ~ N(mean, std^2). Positions
    are volume-preserving functions of the rest: densities are those of the momentum, and their ratio is exact.

    Arguments:
        mean: of the new momentum, with shape (*, D).
        std: broadcasts against `mean`.
        position: of the state that the kernel leaves, with shape (*, D).
        moving: the momentum that moves it, or None where it is the new one.
        step: by how much, with its sign; broadcasts against `mean`.
    """

    def __init__(self, mean: Tensor, std: Tensor, position: Tensor, moving: Tensor | None, step: Tensor) -> None:
        self.momentum = GaussianKernel(mean, std)
        self.position = position
        self.moving = moving
        self.step = step

    def rsample(self, generator: torch.Generator | None = None, noise_scale: float = 1.0) -> Tensor:
        momentum = self.momentum.rsample(generator, noise_scale)
        moving = momentum if self.moving is None else self.moving
        return torch.cat([self.position + self.step.to(momentum.dtype) * moving, momentum], -1)

    def log_prob(self, y: Tensor) -> Tensor:
        return self.momentum.log_prob(y[..., y.shape[-1] // 2 :])

    def widened(self, log_scale: Tensor) -> "MomentumKernel":
        widened = self.momentum.widened(log_scale[..., log_scale.shape[-1] // 2 :])
        return MomentumKernel(widened.mean, widened.std, self.position, self.moving, self.step)


class ProductKernel(Kernel):
    """Independent kernels of consecutive coordinates.

    Arguments:
        parts: in the order of their coordinates.
    """

    def __init__(self, parts: Sequence[Kernel]) -> None:
        self.parts = list(parts)

    @property
    def mean(self) -> Tensor:
        """With shape (*, D)."""
        return torch.cat([part.mean for part in self.parts], -1)

    @property
    def std(self) -> Tensor:
        """With shape (*, D)."""
        return torch.cat([part.std.expand_as(part.mean) for part in self.parts], -1)

    def around(self, mean: Tensor) -> "ProductKernel":
        return ProductKernel([kernel.around(part) for kernel, part in self._parts(mean)])

    def rsample(self, generator: torch.Generator | None = None, noise_scale: float = 1.0) -> Tensor:
        return torch.cat([part.rsample(generator, noise_scale) for part in self.parts], -1)

    def log_prob(self, y: Tensor) -> Tensor:
        return sum(kernel.log_prob(part) for kernel, part in self._parts(y))

    def widened(self, log_scale: Tensor) -> "ProductKernel":
        return ProductKernel([kernel.widened(part) for kernel, part in self._parts(log_scale)])

    def _parts(self, x: Tensor) -> Iterator[tuple[Kernel, Tensor]]:
        return zip(self.parts, x.split([part.mean.shape[-1] for part in self.parts], -1), strict=True)
