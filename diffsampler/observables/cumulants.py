"""Variances, and what physics makes of them: these are no means, but smooth functions of means."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import check_count, check_positive
from diffsampler.observables.base import Observable, columns


class Variance(Observable):
    """Var f = E[f^2] - E[f]^2, of each component.

    Arguments:
        f: a function of x, with shape (n) or (n, k), for x with shape (n, D).
        factor: on the variance.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], factor: float = 1.0) -> None:
        self.f = f
        self.factor = check_positive("factor", factor)

    def __call__(self, x: Tensor) -> Tensor:
        values = columns(self.f(x), len(x))
        # About the median, which changes no variance: the square of a constant of 1e8 would leave nothing of it.
        values = values - values.nanmedian(0).values
        return torch.cat([values, values.square()], -1)

    def of_means(self, means: Tensor) -> Tensor:
        mean, mean_of_squares = means.chunk(2)
        variance = self.factor * (mean_of_squares - mean.square())
        return variance.squeeze(0) if len(variance) == 1 else variance


class HeatCapacity(Variance):
    """C / k_B = beta^2 Var E, the temperature's derivative of the mean energy at fixed everything else.

    Arguments:
        energy: E(x), with shape (n). That of a target, -log R(x), is beta E: then beta is 1.
        inverse_temperature: beta.
    """

    def __init__(self, energy: Callable[[Tensor], Tensor], inverse_temperature: float = 1.0) -> None:
        super().__init__(energy, check_positive("inverse_temperature", inverse_temperature) ** 2)


class Susceptibility(Observable):
    """V (E[m^2] - E[|m|]^2), that of an order parameter whose sign is arbitrary on a finite lattice.

    Arguments:
        magnetisation: m(x), a mean over sites, with shape (n).
        volume: V, the number of sites.
    """

    def __init__(self, magnetisation: Callable[[Tensor], Tensor], volume: int) -> None:
        self.magnetisation = magnetisation
        self.volume = check_count("volume", volume)

    def __call__(self, x: Tensor) -> Tensor:
        m = columns(self.magnetisation(x), len(x)).norm(dim=-1)
        return torch.stack([m, m.square()], -1)

    def of_means(self, means: Tensor) -> Tensor:
        return self.volume * (means[1] - means[0].square())
