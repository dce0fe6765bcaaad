"""An estimate and its verdict, from Python."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import correlated_gaussian

from diffsampler import FunctionTarget, InputError, Sampler, assess
from diffsampler.assessment import format_table
from diffsampler.baseline import reference
from diffsampler.log_z import estimate_log_z, judge
from diffsampler.processes import PinnedBrownian
from targets import Gaussian


def exact_sampler(has_draws: bool = True) -> Sampler:
    """Of N(0, 2^2), which the uncontrolled process ends in: every weight is Z."""
    target = Gaussian([0.0, 0.0], 4.0)
    if not has_draws:
        target = FunctionTarget(target.log_prob, dim=2, log_z=0.0)
    target.log_prob_and_score = lambda x: (target.log_prob(x), torch.zeros_like(x))  # as without a score
    return Sampler(target, process=partial(PinnedBrownian, sigma=2.0), grid=5)


def test_supports_what_is_right() -> None:
    alone = assess(exact_sampler(has_draws=False), num_samples=500)
    assert alone.verdict.grade == "doubtful" and alone.draws is None  # nothing independent stands beside it
    text = str(alone)
    assert "verdict: doubtful" in text and "true log Z" in text and alone.verdict.reasons[0] in text
    assert all(f"next: {step}" in text for step in alone.verdict.next_steps) and alone.verdict.next_steps
    found = reference(Gaussian([0.0, 0.0], 4.0), 500, seed=0)
    independent = assess(exact_sampler(has_draws=False), num_samples=500, reference=found)
    assert independent.verdict.grade == "trustworthy" and independent.reference is found.estimate


def test_exact_draws_stand_beside_it() -> None:
    found = assess(exact_sampler(), num_samples=500)
    assert found.verdict.grade == "trustworthy" and found.reference is None
    assert found.draws_are_exact and found.draws.shape == (500, 2) and found.true_log_z == 0
    assert abs(found.estimate.log_z) < 1e-5 and abs(found.eubo) < 1e-5
    assert "verdict: trustworthy" in str(found) and "next:" not in str(found)


def test_a_table_says_nothing_of_a_tail_that_is_none() -> None:
    estimate = estimate_log_z(torch.randn(200, generator=torch.Generator().manual_seed(0)))
    assert "Pareto khat" in format_table(estimate)
    assert "Pareto" not in format_table(replace(estimate, khat=math.nan))


def test_finds_what_is_missing() -> None:
    # One of two modes, ten widths apart: the sampler's weights are perfect.
    sampler = Sampler(correlated_gaussian(), grid=8)
    away = reference(Gaussian([40.0, 0.0], 1.0), 500, seed=0)
    verdict = assess(sampler, 500, reference=away).verdict
    assert verdict.grade == "not to be trusted" and any("Modes are missing" in reason for reason in verdict.reasons)


def test_is_reproducible_and_leaves_the_count_of_the_run() -> None:
    sampler = exact_sampler()
    first, second = assess(sampler, 300, seed=3), assess(sampler, 300, seed=3)
    assert first.estimate.log_z == second.estimate.log_z and first.eubo == second.eubo
    # Six states a draw; rolling back is no part of what the run costs.
    assert sampler.num_target_evaluations == 2 * 300 * 6


def test_a_reference_is_not_its_estimate() -> None:
    estimate = estimate_log_z(torch.zeros(200))
    assert math.isfinite(estimate.log_z)
    with pytest.raises(InputError, match=r"reference must be a LogZEstimate, such as reference\(target\)\.estimate"):
        judge(estimate, reference(Gaussian([0.0], 1.0), 200, seed=0))
    with pytest.raises(InputError, match=r"reference must be what reference\(target\) returns"):
        assess(exact_sampler(), 50, reference=estimate)
