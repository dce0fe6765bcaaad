"""Posteriors from simulations alone: draws of what was learned, and no weights."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND
from torch.distributions import Independent, MultivariateNormal, Normal

from diffsampler import InputError, Sampler, assess, fit
from diffsampler.behaviours import JointSamples
from diffsampler.families import Simulated
from diffsampler.losses import LogVariance

NOISE = 0.5


def linear_model() -> Simulated:
    """x ~ N(0, I), data ~ N(x, NOISE^2): the posterior is N(0.8 data, 0.2 I)."""
    prior = Independent(Normal(torch.zeros(2), 1.0), 1)
    return Simulated(prior, lambda x: x + NOISE * torch.randn_like(x))


@pytest.fixture(scope="module")
def fitted() -> tuple[Sampler, dict]:
    torch.set_default_dtype(torch.float64)
    sampler = Sampler(linear_model())
    history = fit(sampler, max_steps=60, seed=0, num_eval_samples=2000, enable_progress_bar=False)
    return sampler, history[-1]


def test_draws_are_those_of_each_posterior(fitted: tuple[Sampler, dict]) -> None:
    """2000 draws at each of two data sets: means to Z_BOUND errors and 0.03 for what is not learned, of 0.45."""
    for data in ([2.0, -1.0], [-1.0, 0.3]):
        x = fitted[0].given(data).sample(2000, seed=1)
        off = (x.mean(0) - 0.8 * torch.tensor(data)).abs().max()
        assert off < Z_BOUND * math.sqrt(0.2 / 2000) + 0.03
        assert (x.var(0) / 0.2 - 1).abs().max() < Z_BOUND * math.sqrt(2 / 2000) + 0.1


def test_validations_are_of_fresh_simulations(fitted: tuple[Sampler, dict]) -> None:
    """The mean log-density of a posterior at its own parameters is minus its entropy, an upper bound here."""
    found, exact = fitted[1], -math.log(2 * math.pi * math.e * 0.2)
    assert found["standard_error"] == pytest.approx(1 / math.sqrt(2000), rel=0.2)  # of half a chi^2 of two
    assert -0.05 < found["log_likelihood"] - exact + Z_BOUND * found["standard_error"]
    assert found["log_likelihood"] < exact + Z_BOUND * found["standard_error"]


def test_the_learned_posterior_has_a_density(fitted: tuple[Sampler, dict]) -> None:
    data, x = torch.tensor([0.4, -0.2]), torch.tensor([[0.0, 0.0], [0.5, -0.5]])
    exact = MultivariateNormal(0.8 * data, 0.2 * torch.eye(2)).log_prob(x).double()
    assert (fitted[0].given(data).log_prob(x) - exact).abs().max() < 0.2


ASKED = {
    "weights": lambda member: member.sample(10, return_log_weights=True),
    "log_z": lambda member: member.estimate_log_z(10),
    "verdict": assess,
    "posterior": lambda member: member.posterior(),
    "density": lambda member: member.target.log_prob(torch.zeros(1, 2)),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_what_needs_a_likelihood_is_refused(ask: Callable[[Sampler], object], fitted: tuple[Sampler, dict]) -> None:
    with pytest.raises(InputError, match="no likelihood is known: Simulated gives draws of the learned posterior"):
        ask(fitted[0].given([0.0, 0.0]))


def test_neither_is_a_curve_nor_another_loss_to_be_had(fitted: tuple[Sampler, dict]) -> None:
    with pytest.raises(InputError, match="no likelihood is known"):
        fitted[0].log_z_curve([[0.0, 0.0]], num_samples=10)
    with pytest.raises(InputError, match="no likelihood is known"):
        fit(Sampler(linear_model()), 1, loss=LogVariance(), behaviour=JointSamples(), enable_progress_bar=False)


def test_nothing_is_evaluated_and_a_file_keeps_it(fitted: tuple[Sampler, dict], tmp_path: Path) -> None:
    sampler = fitted[0]
    assert sampler.num_target_evaluations == 0
    sampler.save(tmp_path / "simulated.ckpt")
    loaded = Sampler.load(tmp_path / "simulated.ckpt", linear_model())
    assert torch.equal(loaded.given([1.0, -2.0]).sample(20, seed=3), sampler.given([1.0, -2.0]).sample(20, seed=3))
