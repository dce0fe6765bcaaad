"""The double well exp(-(u^2 - delta)^2 + tilt u) on the line: its integral, its mass on the right and exact samples.

Shared by `ManyWell` (delta = 3, tilt = 1/2, times exp(9)) and `DoubleWell` (tilt = 0).
"""

import math

import torch
from scipy.integrate import quad
from torch import Tensor

__all__ = ["integrate_well", "sample_well"]


def integrate_well(delta: float, tilt: float = 0.0) -> tuple[float, float]:
    """(log integral over R, share of the mass on u > 0), by adaptive quadrature in float64."""
    centre = math.sqrt(delta)
    # the largest tilt term near the wells: keeps the integrand near 1 whatever the arguments
    shift = abs(tilt) * centre

    def integrate(sign: float) -> float:
        def density(u: float) -> float:
            return math.exp(-((u * u - delta) ** 2) + sign * tilt * u - shift)

        # (u^2 - delta)^2 > 64 beyond `end`; split around the peak, which may be narrow
        width = min(1.0, 1 / centre)
        end = math.sqrt(delta + 8 + abs(tilt) ** (2 / 3))
        knots = sorted({0.0, max(0.0, centre - 4 * width), centre, min(end, centre + 4 * width), end})
        pieces = zip(knots[:-1], knots[1:], strict=True)
        return math.fsum(quad(density, low, high, epsabs=0, epsrel=1e-12, limit=200)[0] for low, high in pieces)

    left, right = integrate(-1.0), integrate(1.0)
    return math.log(left + right) + shift, right / (left + right)


def sample_well(
    n: int,
    delta: float,
    tilt: float,
    generator: torch.Generator | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """n exact draws, with shape (n), by rejection.

    With c = sqrt(delta), (u^2 - delta)^2 = (|u| - c)^2 (|u| + c)^2 >= delta (|u| - c)^2: a Gaussian of variance 1 / (2
    delta) around each well bounds the density, with no constant to estimate. The tilt moves its mean and sets the odds
    of the sides. About half of the proposals are kept.
    """
    centre, scale = math.sqrt(delta), math.sqrt(0.5 / delta)
    right = 1 / (1 + math.exp(-2 * tilt * centre))
    kept: list[Tensor] = []
    missing = n
    while missing > 0:
        size = 3 * missing + 16
        uniform, accept = torch.rand(2, size, generator=generator, device=device, dtype=dtype)
        side = torch.where(uniform < right, 1.0, -1.0).to(dtype)
        noise = torch.randn(size, generator=generator, device=device, dtype=dtype)
        u = side * centre + 0.5 * tilt / delta + scale * noise
        distance = side * u  # |u| if u lies on the proposed side
        log_ratio = -((distance - centre) ** 2) * ((distance + centre) ** 2 - delta)
        kept.append(u[(distance > 0) & (accept < log_ratio.exp())][:missing])
        missing -= len(kept[-1])
    return torch.cat(kept) if kept else torch.empty(0, device=device, dtype=dtype)
