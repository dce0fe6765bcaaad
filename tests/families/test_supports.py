"""Families whose members have a declared support: carried to R^D, with log Z of x."""

import math
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND
from torch import Tensor
from torch.distributions import constraints

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.families import Coupled, Family, Scalarised, Tempered
from diffsampler.networks import FourierMLP
from diffsampler.processes import VariancePreserving
from targets import Gaussian

SHAPES = torch.tensor([3.0, 1.5], dtype=torch.float64)


def gamma() -> FunctionTarget:
    """prod_k x_k^(a_k - 1) exp(-x_k) on x > 0."""
    return FunctionTarget(lambda x: (x.log() * (SHAPES - 1).to(x) - x).sum(-1), 2, support=constraints.positive)


def log_z_of_gamma(beta: float) -> float:
    """A power of a Gamma density is one of shape beta (a - 1) + 1 and rate beta."""
    shape = beta * (SHAPES - 1) + 1
    return float((shape.lgamma() - shape * math.log(beta)).sum())


class Beta(Family):
    """(x / 2)^(c - 1) (1 - x / 2)^(1 / 2) on (0, 2): Z = 2 B(c, 3 / 2)."""

    support = (0, 2)

    def __init__(self) -> None:
        super().__init__(1, 1)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        share = x[..., 0] / 2
        return (context[..., 0] - 1) * share.log() + 0.5 * (-share).log1p()

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return 1 + 2 * torch.rand(n, 1, generator=generator)

    def sample_jointly(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        context = self.sample_contexts(n, generator)
        shapes = torch.cat([context, torch.full_like(context, 1.5)], -1)
        drawn = torch._standard_gamma(shapes, generator=generator)
        return 2 * drawn[:, :1] / drawn.sum(-1, keepdim=True), context


def log_z_of_beta(c: float) -> float:
    return math.log(2) + math.lgamma(c) + math.lgamma(1.5) - math.lgamma(c + 1.5)


def within(high: float, slope: float = 1.0) -> FunctionTarget:
    return FunctionTarget(lambda x: -slope * x.sum(-1), 2, support=(0, high))


def unsearched(family: Family) -> Sampler:
    return Sampler(family, process=VariancePreserving, control=FourierMLP, grid=8)


def check_mean(weight: Tensor) -> None:
    """One figure, 1e-4."""
    assert abs(float(weight.mean()) - 1) < Z_BOUND * float(weight.std()) / math.sqrt(len(weight))


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.6])
def test_weights_within_a_support_are_exact_before_any_training(beta: float) -> None:
    x, log_weight = unsearched(Tempered(gamma())).given(math.log(beta)).sample(20_000, 1, return_log_weights=True)
    assert (x > 0).all()
    check_mean((log_weight - log_z_of_gamma(beta)).exp())


@pytest.mark.parametrize("c", [1.2, 2.5])
def test_a_family_declares_a_support_as_a_target_does(c: float) -> None:
    x, log_weight = unsearched(Beta()).given(c).sample(20_000, 1, return_log_weights=True)
    assert ((x > 0) & (x < 2)).all()
    check_mean((log_weight - log_z_of_beta(c)).exp())


@pytest.mark.slow
def test_a_family_on_a_support_is_searched_and_learned() -> None:
    sampler = Sampler(Tempered(gamma(), 0.5, 2.0))
    fit(sampler, max_steps=300, seed=0, enable_progress_bar=False)
    betas = [0.5, 1.0, 1.9]
    curve = sampler.log_z_curve([math.log(beta) for beta in betas], num_samples=2000, seed=1)
    # Tails towards an edge at 0 are exponential where coordinates go anywhere: at 0.5, a verdict may see that.
    assert curve.grades[1:] == ["trustworthy"] * 2
    for beta, estimate in zip(betas, curve.estimates, strict=True):
        assert estimate.ess > 0.5
        # 1e-4 for each of three.
        assert abs(estimate.log_z - log_z_of_gamma(beta)) < Z_BOUND * (estimate.high - estimate.low) / 3.92


@pytest.mark.slow
def test_what_is_learned_within_a_support_stays_there(tmp_path: Path) -> None:
    sampler = Sampler(Beta())
    fit(sampler, max_steps=20, seed=0, batch_size=128, num_eval_samples=200, enable_progress_bar=False)
    member = sampler.given(2.0)
    estimate = member.estimate_log_z(4000, seed=1)
    assert abs(estimate.log_z - log_z_of_beta(2.0)) < Z_BOUND * (estimate.high - estimate.low) / 3.92
    x = member.sample(500, seed=2)
    assert ((x > 0) & (x < 2)).all() and member.log_prob(x[:20]).isfinite().all()
    assert member.log_prob(-x[:20]).isneginf().all()
    assert member.rollback(x).x.shape[1] == 500
    with pytest.raises(InputError, match="within the support"):
        member.rollback(-x)
    sampler.save(tmp_path / "beta.ckpt")
    again = Sampler.load(tmp_path / "beta.ckpt", Beta()).given(2.0)
    assert torch.equal(again.sample(20, seed=3), member.sample(20, seed=3))


def test_a_support_that_depends_on_the_context_is_refused() -> None:
    assert Coupled(within, {"slope": (1.0, 2.0)}, high=1.0).given(1.5).support == (0, 1.0)
    with pytest.raises(InputError, match="with one support, but those of FunctionTarget have several"):
        Coupled(within, {"high": (1.0, 2.0)})
    with pytest.raises(InputError, match="with one support"):
        Scalarised([within(1.0), Gaussian(mean=[0.0, 0.0], covariance=1.0)])
