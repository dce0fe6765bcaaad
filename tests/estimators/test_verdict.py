"""The verdict: each fault is named and graded, and a sound estimate passes."""

import math
from dataclasses import replace

import pytest
import torch

from diffsampler.estimators import LogZEstimate, estimate_log_z
from diffsampler.estimators.verdict import GRADES, judge, share_not_covered
from targets import GaussianMixture

GOOD, DOUBTFUL, BAD = GRADES


@pytest.fixture
def estimate(generator: torch.Generator) -> LogZEstimate:
    return estimate_log_z(0.3 * torch.randn(2000, generator=generator))


def draws(weights: list[float], generator: torch.Generator, n: int = 2000) -> torch.Tensor:
    return GaussianMixture([[-4.0, 0.0], [4.0, 1.0]], [[1.0, 1.0], [0.5, 0.5]], weights).sample(n, generator)


def test_a_sound_estimate_is_trustworthy(estimate: LogZEstimate, generator: torch.Generator) -> None:
    x, y = draws([0.7, 0.3], generator), draws([0.6, 0.4], generator)
    verdict = judge(estimate, replace(estimate, log_z=estimate.log_z + 0.01), x, torch.zeros(2000), y)
    assert verdict.grade == GOOD and any("same places" in reason for reason in verdict.reasons), verdict


def test_nothing_beside_it_is_doubtful(estimate: LogZEstimate) -> None:
    verdict = judge(estimate)
    assert verdict.grade == DOUBTFUL and "No independent estimate" in verdict.reasons[0]
    no_interval = judge(estimate, replace(estimate, high=math.inf))
    assert no_interval.grade == DOUBTFUL and "no interval itself" in no_interval.reasons[0]


@pytest.mark.parametrize(
    ("change", "grade", "reason"),
    [
        ({"khat": 0.8}, BAD, "too heavy-tailed"),
        ({"khat": 0.6}, DOUBTFUL, "heavy-tailed"),
        ({"khat": math.nan, "num_samples": 24}, DOUBTFUL, "too few to judge"),
        ({"ess": 0.004}, BAD, "Only 8 samples"),
        ({"ess": 0.03}, DOUBTFUL, "Only 60 samples"),
    ],
)
def test_weights(estimate: LogZEstimate, change: dict, grade: str, reason: str) -> None:
    verdict = judge(replace(estimate, **change), estimate)
    assert verdict.grade == grade and reason in verdict.reasons[0]


@pytest.mark.parametrize(("shift", "grade"), [(0.05, GOOD), (0.12, BAD), (-0.7, BAD)])
def test_disagreement(estimate: LogZEstimate, shift: float, grade: str) -> None:
    # Standard errors of 0.007 each: 0.12 is 12 of them, 0.05 too small to matter.
    verdict = judge(estimate, replace(estimate, log_z=estimate.log_z + shift))
    assert verdict.grade == grade and f"{-shift:+.3f} nats" in verdict.reasons[0 if grade != GOOD else -1], verdict


def test_a_missing_mode_is_named(estimate: LogZEstimate, generator: torch.Generator) -> None:
    one, both = draws([0.999999, 0.000001], generator), draws([0.7, 0.3], generator)
    verdict = judge(estimate, estimate, one, torch.zeros(2000), both)
    assert verdict.grade == BAD and verdict.reasons[0].startswith("Modes are missing: 3"), verdict
    # The other way round the reference has missed it.
    verdict = judge(estimate, estimate, both, torch.zeros(2000), one)
    assert verdict.grade == DOUBTFUL and "where the reference has hardly any draws" in verdict.reasons[0]


def test_draws_of_no_weight_may_be_anywhere(estimate: LogZEstimate, generator: torch.Generator) -> None:
    both = draws([0.7, 0.3], generator)
    x = torch.cat([draws([0.5, 0.5], generator), 30 * torch.randn(1000, 2, generator=generator)])
    log_weight = torch.cat([torch.zeros(2000), torch.full((1000,), -50.0)])
    assert judge(estimate, estimate, x, log_weight, both).grade == GOOD
    assert judge(estimate, estimate, x, torch.zeros(3000), both).grade == DOUBTFUL


def test_coverage_in_between(generator: torch.Generator) -> None:
    # A mode between two others in each coordinate, that no marginal shows.
    means = [[0.0, 0.0], [0.0, 6.0], [6.0, 0.0], [6.0, 6.0]]
    every = GaussianMixture(means, 0.5, [0.25] * 4).sample(2000, generator)
    three = GaussianMixture(means[:3], 0.5, [1.0] * 3).sample(2000, generator)
    assert share_not_covered(every, by=three) > 0.2
    assert share_not_covered(three, by=every) < 0.01
    for dim in (1, 30):
        x, y = torch.randn(2, 2000, dim, generator=generator)
        assert share_not_covered(x, by=y) < 0.01


def test_drift_is_named(estimate: LogZEstimate) -> None:
    def history(values: list[float], error: float) -> list[dict]:
        return [{"log_z": value, "low": value - 1.96 * error, "high": value + 1.96 * error} for value in values]

    moving = [-0.5, -0.5, -0.5, 0.0, 0.0]
    assert judge(estimate, estimate, history=history([0.0, 0.01, -0.01, 0.0, 0.01], 0.01)).grade == GOOD
    assert judge(estimate, estimate, history=history(moving, 0.5)).grade == GOOD
    verdict = judge(estimate, estimate, history=history(moving, 0.05))
    assert verdict.grade == DOUBTFUL and "drifts: by +0.500 nats" in verdict.reasons[0]
    assert judge(estimate, estimate, history=history(moving[:4], 0.05)).grade == GOOD


@pytest.mark.parametrize("n", [2000, 10_000])
@pytest.mark.parametrize("spread", [0.3, 1.0, 1.5, 2.0])
def test_weights_of_a_full_sampler_raise_no_alarm(n: int, spread: float, generator: torch.Generator) -> None:
    # Log-normal weights and their counterpart under the target, as for a Gaussian off by a shift: nothing is missing.
    for _ in range(100):
        log_weight = spread * torch.randn(n, generator=generator) - 0.5 * spread**2
        rolled_back = spread * torch.randn(2000, generator=generator) + 0.5 * spread**2
        estimate = estimate_log_z(log_weight)
        reasons = judge(estimate, estimate, log_weight=log_weight, rolled_back=rolled_back).reasons
        assert not any("missing" in reason for reason in reasons), reasons


@pytest.mark.parametrize(("share", "grade"), [(0.0, GOOD), (0.05, DOUBTFUL), (0.2, BAD), (0.6, BAD)])
def test_draws_of_the_target_that_outweigh_the_own(share: float, grade: str, generator: torch.Generator) -> None:
    # A share of the target where the sampler never goes: its draws, rolled back, weigh nine nats.
    log_weight = 0.5 * torch.randn(2000, generator=generator)
    rolled_back = 0.5 * torch.randn(2000, generator=generator) + 0.25
    rolled_back[: int(2000 * share)] = 9.0
    rolled_back[-1] = -math.inf  # rounding at an edge of the support
    estimate = estimate_log_z(log_weight)
    for spoilt in (log_weight, torch.cat([log_weight, torch.tensor([math.nan, math.inf, -math.inf])])):
        verdict = judge(estimate, estimate, log_weight=spoilt, rolled_back=rolled_back)
        assert verdict.grade == grade, verdict
        assert any("missing" in reason for reason in verdict.reasons) == (share > 0)
        assert any(f"EUBO {rolled_back[:-1].mean():.3f}" in reason for reason in verdict.reasons)


def test_an_estimate_of_smc_is_judged_by_its_genealogy(estimate: LogZEstimate) -> None:
    sequential = replace(estimate, khat=math.nan)
    verdict = judge(sequential, estimate)
    assert verdict.grade == GOOD and any("genealogy of 2000 particles" in reason for reason in verdict.reasons)
    assert judge(replace(sequential, low=-3.0, high=math.inf), estimate).grade == BAD
    few = judge(replace(sequential, num_samples=10), estimate)
    assert few.grade == BAD and any("too few to judge" in reason for reason in few.reasons)
