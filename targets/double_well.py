"""Symmetric double wells in some coordinates, a Gaussian in the others."""

import math

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.target import Target
from targets._wells import integrate_well, sample_well

__all__ = ["DoubleWell"]


class DoubleWell(Target):
    """log R(x) = -sum_{i <= m} (x_i^2 - delta)^2 - sum_{i > m} x_i^2 / 2: 2^m equal modes at +-sqrt(delta).

    Richter & Berner, Improved sampling via learned diffusions, 2024, https://arxiv.org/abs/2307.01198. log Z by
    quadrature: -0.541056 for m = 5, delta = 4, D = 5 and 42.817243 for m = 5, delta = 2, D = 50.

    Arguments:
        num_wells: the number m of double-well coordinates, which come first.
        delta: the squared distance of the wells from 0; the barrier's height is delta^2.
        dim: the dimension D, at least m.
    """

    def __init__(self, num_wells: int = 5, delta: float = 4.0, dim: int = 5) -> None:
        check_count("num_wells", num_wells)
        super().__init__(dim)
        if dim < num_wells:
            raise InputError(f"dim must be at least num_wells = {num_wells}, got {dim}.")
        self.num_wells = num_wells
        self.delta = float(check_positive("delta", delta))
        self.log_z = num_wells * integrate_well(self.delta)[0] + 0.5 * (dim - num_wells) * math.log(2 * math.pi)
        reach = math.sqrt(self.delta) + 1.5
        self.plot_range = (-reach, reach)
        # no constants to hold: it tells `sample` the device
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    def log_prob(self, x: Tensor) -> Tensor:
        wells, rest = x[..., : self.num_wells], x[..., self.num_wells :]
        height = wells * wells - self.delta
        return -(height * height).sum(-1) - 0.5 * (rest * rest).sum(-1)

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wells, rest = x[..., : self.num_wells], x[..., self.num_wells :]
        height = wells * wells - self.delta
        log_prob = -(height * height).sum(-1)
        score = -x
        score[..., : self.num_wells] = -4 * height * wells
        if self.num_wells < self.dim:
            log_prob -= 0.5 * (rest * rest).sum(-1)
        return log_prob, score

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        dtype, device = torch.get_default_dtype(), self._anchor.device
        wells = sample_well(n * self.num_wells, self.delta, 0.0, generator, device, dtype).reshape(n, self.num_wells)
        rest = torch.randn(n, self.dim - self.num_wells, generator=generator, device=device, dtype=dtype)
        return torch.cat([wells, rest], dim=-1)

    @torch.no_grad()
    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """The share of samples in the right well, over the double-well coordinates, and the truth of each."""
        mass = (x[..., : self.num_wells] > 0).double().reshape(-1, self.num_wells).mean(0)
        return {
            "right_well_mass_mean": float(mass.mean()),
            "right_well_mass_min": float(mass.min()),
            "right_well_mass_max": float(mass.max()),
            "right_well_mass_truth": 0.5,
        }
