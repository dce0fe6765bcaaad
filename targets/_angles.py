"""Exact draws of angles: von Mises, and von Mises given that they close up to whole turns.

Shared by `VonMisesMixture`, `U1Gauge` and `XYModel`.
"""

import math

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor

__all__ = ["bessel_ratios", "log_bessel_sum", "sample_closed", "sample_von_mises"]

NUM_TRIED = 4096


def bessel_ratios(beta: float, tolerance: float = 1e-18) -> Tensor:
    """I_n(beta) / I_0(beta) for n = 0, 1, ... while above a tolerance, float64."""
    ratios = torch.from_numpy(ive(np.arange(math.ceil(50.0 + 10 * beta)), beta)) / float(ive(0, beta))
    return ratios[ratios > tolerance]


def log_bessel_sum(beta: float, power: int) -> float:
    """log sum_n I_n(beta)^power over all whole n: of `power` angles x with weights exp(beta cos x) that close up."""
    ratios = bessel_ratios(beta) ** power
    return power * (math.log(float(ive(0, beta))) + beta) + math.log(2 * float(ratios.sum()) - 1)


def sample_closed(n: int, num: int, beta: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """`num` angles with density in proportion to exp(beta sum_i cos x_i) given that their sum is 0 modulo 2 pi.

    One after the other, float64 in [-pi, pi), with shape (n, num): a von Mises draw x is kept with the density of the
    k angles to come to close up, sum_n (I_n / I_0)^k cos(n (s + x)), over its largest value, for s the sum so far.
    That asks for a few draws on average, for many where s is unlikely: those that are missing are tried many at once.
    """
    ratios = bessel_ratios(beta).to(device)
    orders = torch.arange(len(ratios), dtype=torch.float64, device=device)
    angles = torch.empty(num, n, dtype=torch.float64, device=device)
    total = torch.zeros(n, dtype=torch.float64, device=device)
    for k in range(num - 1, 0, -1):
        coefficients = torch.where(orders == 0, 1.0, 2.0) * ratios**k
        coefficients = coefficients[coefficients > 1e-18] / coefficients.sum()
        missing = torch.arange(n, device=device)
        while len(missing):
            shape = (max(1, NUM_TRIED // len(missing)), len(missing))
            proposed = sample_von_mises(torch.full(shape, beta, dtype=torch.float64, device=device), generator)
            closing = ((total[missing] + proposed).unsqueeze(-1) * orders[: len(coefficients)]).cos() @ coefficients
            kept = torch.rand(shape, generator=generator, dtype=torch.float64, device=device) < closing
            found, first = kept.max(0)
            angles[num - 1 - k, missing] = proposed.gather(0, first.unsqueeze(0)).squeeze(0)
            missing = missing[~found]
        total = total + angles[num - 1 - k]
    angles[-1] = torch.remainder(math.pi - total, 2 * math.pi) - math.pi
    return angles.T


def sample_von_mises(concentration: Tensor, generator: torch.Generator | None) -> Tensor:
    """One von Mises draw around 0 for each concentration, by rejection from a wrapped Cauchy density.

    Best & Fisher, Efficient simulation of the von Mises distribution, 1979, https://doi.org/10.2307/2346732.
    """
    tau = 1 + (1 + 4 * concentration.square()).sqrt()
    rho = (tau - (2 * tau).sqrt()) / (2 * concentration)
    r = (1 + rho.square()) / (2 * rho)
    angle = torch.zeros_like(concentration)
    missing = torch.ones_like(concentration, dtype=torch.bool)
    while missing.any():
        shape = (3, *concentration.shape)
        u = torch.rand(shape, generator=generator, dtype=concentration.dtype, device=concentration.device)
        z = (math.pi * u[0]).cos()
        f = (1 + r * z) / (r + z)
        c = concentration * (r - f)
        accepted = (c * (2 - c) - u[1] > 0) | ((c / u[1]).log() + 1 - c >= 0)
        proposal = torch.where(u[2] < 0.5, -1.0, 1.0) * f.clamp(-1, 1).acos()
        angle = torch.where(missing & accepted, proposal, angle)
        missing = missing & ~accepted
    return angle
