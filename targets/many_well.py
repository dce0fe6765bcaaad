"""ManyWell: independent pairs of a tilted double well and a Gaussian, 2^(D/2) modes."""

import math

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count
from diffsampler.target import Target
from targets._wells import integrate_well, sample_well

__all__ = ["ManyWell"]

_DELTA, _TILT, _PEAK = 3.0, 0.5, 9.0  # -u^4 + 6 u^2 + u/2 = -(u^2 - 3)^2 + u/2 + 9


class ManyWell(Target):
    """D/2 independent pairs with log R(u, v) = -u^4 + 6 u^2 + u/2 - v^2/2, interleaved: x = (u_1, v_1, u_2, v_2, ...).

    Noe et al., Boltzmann generators, 2019, https://arxiv.org/abs/1812.01729 (one pair); Midgley et al., FAB, 2023,
    https://arxiv.org/abs/2208.01893 (16 pairs). log Z by quadrature: 164.695675 for D = 32. A sampler that knows only
    the heavier wells underestimates it by D/2 x 0.1692 whatever its ESS: look at the right-well masses.

    Arguments:
        dim: the dimension D, even.

    Attributes:
        right_well_mass: the exact probability of u > 0, 0.8443.
    """

    plot_range = (-3.0, 3.0)

    def __init__(self, dim: int = 32) -> None:
        check_count("dim", dim, minimum=2)
        if dim % 2:
            raise InputError(f"dim must be even (pairs of coordinates), got {dim}.")
        super().__init__(dim)
        log_integral, self.right_well_mass = integrate_well(_DELTA, _TILT)
        self.log_z = dim // 2 * (log_integral + _PEAK + 0.5 * math.log(2 * math.pi))
        self.plot_coordinates = (0, 2) if dim > 2 else (0, 1)
        # log R = sum of (quartic x^2 + quadratic) x^2 + linear x, whose coefficients alternate; exact in every dtype
        for name, pair in {"_quartic": [-1.0, 0.0], "_quadratic": [6.0, -0.5], "_linear": [0.5, 0.0]}.items():
            self.register_buffer(name, torch.tensor(pair).repeat(dim // 2), persistent=False)

    def log_prob(self, x: Tensor) -> Tensor:
        quartic, quadratic, linear = self._coefficients(x.dtype)
        square = x * x
        return (torch.addcmul(quadratic, quartic, square) * square + linear * x).sum(-1)

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quartic, quadratic, linear = self._coefficients(x.dtype)
        square = x * x
        bend = quartic * square
        slope = bend + quadratic
        log_prob = torch.addcmul(linear * x, slope, square).sum(-1)
        score = torch.addcmul(linear, slope.add_(bend), x, value=2.0)
        return log_prob, score

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        dtype, device = torch.get_default_dtype(), self._linear.device
        pairs = self.dim // 2
        u = sample_well(n * pairs, _DELTA, _TILT, generator, device, dtype)
        v = torch.randn(n * pairs, generator=generator, device=device, dtype=dtype)
        return torch.stack([u, v], dim=-1).reshape(n, self.dim)

    @torch.no_grad()
    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """The share of samples in the right well, over the pairs, and the truth of each."""
        mass = (x[..., 0::2] > 0).double().reshape(-1, self.dim // 2).mean(0)
        return {
            "right_well_mass_mean": float(mass.mean()),
            "right_well_mass_min": float(mass.min()),
            "right_well_mass_max": float(mass.max()),
            "right_well_mass_truth": self.right_well_mass,
        }

    def _coefficients(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        return self._quartic.to(dtype), self._quadratic.to(dtype), self._linear.to(dtype)
