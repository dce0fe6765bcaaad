"""Metrics: against closed forms."""

import math
from functools import partial

import pytest
import torch
from helpers import Z_BOUND, random_sampler

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.networks import FourierMLP
from diffsampler.processes import PinnedBrownian
from diffsampler.report.metrics import eubo, wasserstein2
from targets import Gaussian


def test_wasserstein_of_a_shift_and_of_a_permutation(generator: torch.Generator) -> None:
    x = torch.randn(60, 3, generator=generator)
    shift = torch.tensor([0.3, -0.4, 1.2])
    # The optimal plan of a translation is the translation: its length is 1.3.
    assert wasserstein2(x, (x + shift)[torch.randperm(60, generator=generator)]) == pytest.approx(1.3, abs=1e-9)
    assert wasserstein2(x, x.flip(0)) < 1e-12
    assert wasserstein2(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]])) == pytest.approx(math.sqrt(5))
    with pytest.raises(InputError, match="one shape"):
        wasserstein2(x, x[:5])


class Centred(Gaussian):
    """exp(0.7) N(0, diag(variances))."""

    log_z = 0.7

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return super().log_prob(x) + 0.7


def test_eubo_of_an_exact_sampler_is_log_z() -> None:
    target = Centred([0.0, 0.0], [0.49, 2.56])
    sampler = Sampler(target, partial(PinnedBrownian, sigma=[0.7, 1.6]), FourierMLP, grid=5)
    assert eubo(sampler, 50) == pytest.approx(0.7, abs=1e-9)


def test_eubo_of_brownian_motion_by_hand(generator: torch.Generator) -> None:
    # Without control the weight is R(x) / N(x; 0, sigma^2): EUBO - log Z is the KL of the two Gaussians.
    target = Gaussian([0.5, -0.2], [0.8, 0.5])
    sampler = Sampler(target, partial(PinnedBrownian, sigma=1.0), FourierMLP, flow=None, grid=5)
    expected = 0.5 * (0.8 + 0.5 + 0.25 + 0.04 - 2 - math.log(0.8) - math.log(0.5))
    before = sampler.num_target_evaluations
    x = target.sample(20_000, torch.Generator().manual_seed(3))
    spread = (target.log_prob(x) + 0.5 * x.square().sum(-1)).std() / math.sqrt(20_000)
    value = eubo(sampler, 20_000, generator, batch_size=7000)
    assert abs(value - expected) < Z_BOUND * spread
    assert sampler.num_target_evaluations == before


def test_eubo_needs_exact_samples() -> None:
    with pytest.raises(InputError, match="FunctionTarget has none"):
        eubo(random_sampler(FunctionTarget(lambda x: -x.square().sum(-1), dim=2), grid=2))
