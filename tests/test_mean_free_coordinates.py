"""Particles whose centre is nobody's business."""

import math
from functools import partial

import pytest
import torch
from helpers import MILD, assert_mean, random_sampler

from diffsampler import FunctionTarget, InputError, Sampler, Target
from diffsampler.coordinates import AffineCoordinates, MeanFreeCoordinates
from diffsampler.frames import DensityInCoordinates
from diffsampler.networks import FourierMLP
from diffsampler.processes import PinnedBrownian, Torus, VariancePreserving

N, D = 4, 2
PAIRS = torch.combinations(torch.arange(N)).T


def springs(x: torch.Tensor) -> torch.Tensor:
    """-1/2 sum_{i<j} |x_i - x_j|^2 = -n/2 |z|^2, whose integral over configurations of mean 0 is known."""
    at = x.unflatten(-1, (N, D))
    return -0.5 * (at[..., PAIRS[0], :] - at[..., PAIRS[1], :]).square().sum((-1, -2))


LOG_Z = 0.5 * (N - 1) * D * math.log(2 * math.pi / N)


def target() -> Target:
    return FunctionTarget(springs, dim=N * D, mean_free=N, log_z=LOG_Z)


def test_density_score_and_round_trip(generator: torch.Generator) -> None:
    z = torch.randn(5, 3, (N - 1) * D, generator=generator)
    coordinates = MeanFreeCoordinates(target(), scale=0.7)
    x, log_det = coordinates(z)
    assert x.shape == (5, 3, N * D) and log_det.shape == (5, 3) and log_det.dtype == torch.float64
    torch.testing.assert_close(x.unflatten(-1, (N, D)).mean(-2), torch.zeros(5, 3, D))
    torch.testing.assert_close(coordinates.inverse(x + 3.0), z)  # the mean is lost
    log_prob, score = DensityInCoordinates(target(), coordinates).log_prob_and_score(z)
    torch.testing.assert_close(log_prob, -0.5 * N * 0.49 * z.square().sum(-1) + (N - 1) * D * math.log(0.7))
    torch.testing.assert_close(score, -N * 0.49 * z)


@pytest.mark.parametrize(
    "parts", [{}, {"coordinates": partial(MeanFreeCoordinates, scale=0.9)}], ids=["usual", "scale"]
)
def test_log_z_is_that_of_configurations_of_mean_zero(parts: dict[str, object], generator: torch.Generator) -> None:
    process = partial(VariancePreserving, sigma=0.6)
    sampler = random_sampler(target(), MILD, process=process, control=FourierMLP, flow=None, grid=5, **parts)
    assert isinstance(sampler.coordinates, MeanFreeCoordinates) and sampler.policy.dim == (N - 1) * D
    x, log_weight = sampler.sample(20_000, generator=generator, return_log_weights=True)
    weight = (log_weight - LOG_Z).exp()
    # n = 20000, |z| < 4.5: a false alarm of 7e-6.
    assert 0.01 < weight.var() < 8
    assert_mean(weight, 1.0, "E[w] / Z")
    assert x.shape == (20_000, N * D) and x.unflatten(-1, (N, D)).mean(1).abs().max() < 1e-12
    path = sampler.rollback(x[:3] + 2.0, generator)
    torch.testing.assert_close(sampler.coordinates(path.x[-1])[0], x[:3])


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="for a target whose space is Particles, got FunctionTarget on Euclidean.8."):
        Sampler(FunctionTarget(springs, dim=N * D), coordinates=MeanFreeCoordinates)
    with pytest.raises(InputError, match="scale must be positive"):
        MeanFreeCoordinates(target(), scale=0.0)
    with pytest.raises(InputError, match="of 6 dimensions, but AffineCoordinates walk in 8: take MeanFreeCoordinates"):
        Sampler(target(), PinnedBrownian, coordinates=AffineCoordinates(torch.zeros(8), torch.eye(8)))
    with pytest.raises(InputError, match=r"Torus walks on Circle\(6\), but MeanFreeCoordinates is of Particles"):
        Sampler(target(), Torus, FourierMLP)
