"""Moves that leave the target unchanged, from weighted draws: past where these end, and no further than it goes."""

import math

import pytest
import torch
from helpers import Z_BOUND
from torch import Tensor

from diffsampler import FunctionTarget
from diffsampler.baseline import GaussianComponents
from diffsampler.baseline.part import gaussian_parts
from diffsampler.baseline.proposal import Proposal
from diffsampler.baseline.wander import wander
from diffsampler.counted import CountedTarget

N = 4000


def gumbel(x: Tensor) -> Tensor:
    """Skewed, in two coordinates of unlike widths."""
    z = x / torch.tensor([1.0, 0.2]).to(x)
    return -(z + (-z).exp()).sum(-1)


def gaussian(scale: float) -> Proposal:
    return Proposal(gaussian_parts(GaussianComponents(torch.zeros(1, 2), scale * torch.eye(2)[None])), torch.ones(1))


@pytest.mark.parametrize("differentiable", [True, False])
def test_draws_of_the_target_stay_draws_of_the_target(differentiable: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    target = CountedTarget(FunctionTarget(gumbel, dim=2, differentiable=differentiable))
    exact = -(-torch.rand(N, 2, generator=generator, dtype=torch.float64).log()).log() * torch.tensor([1.0, 0.2])
    x, log_prob = wander(target, gaussian(1.5), exact, torch.zeros(N), N, generator)
    torch.testing.assert_close(log_prob, gumbel(x))
    assert ((x - exact).abs().amax(-1) > 0).double().mean() > 0.5, "most have moved"
    # Mean and variance of a Gumbel law are Euler's constant and pi^2 / 6; standard errors of N independent draws.
    z = x / torch.tensor([1.0, 0.2])
    error = (z.var(0) / N).sqrt()
    assert ((z.mean(0) - 0.5772156649).abs() < Z_BOUND * error).all()
    centred = (z - 0.5772156649).square()
    assert ((centred.mean(0) - math.pi**2 / 6).abs() < Z_BOUND * (centred.var(0) / N).sqrt()).all()


def test_moves_leave_the_region_of_draws_that_are_too_narrow() -> None:
    generator = torch.Generator().manual_seed(4)
    target = CountedTarget(FunctionTarget(lambda x: -0.5 * x.square().sum(-1), dim=2))
    draws = 2 * torch.rand(N, 2, generator=generator, dtype=torch.float64) - 1  # a box in the middle of N(0, I)
    x, _ = wander(target, gaussian(0.5), draws, -0.5 * draws.square().sum(-1), N, generator)
    assert (x.abs() > 1).any(-1).double().mean() > 0.2
