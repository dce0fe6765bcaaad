"""An estimate and its verdict, from Python."""

import math

import pytest
import torch
from helpers import correlated_gaussian

from diffsampler import InputError, Sampler, assess
from diffsampler.estimators import estimate_log_z, judge, reference
from diffsampler.processes import PinnedBrownian
from targets import Gaussian


def exact_sampler() -> Sampler:
    """Of N(0, 2^2), which the uncontrolled process ends in: every weight is Z."""
    target = Gaussian([0.0, 0.0], 4.0)
    target.log_prob_and_score = lambda x: (target.log_prob(x), torch.zeros_like(x))  # as without a score
    return Sampler(target, process=PinnedBrownian(sigma=2.0), grid=5)


def test_supports_what_is_right() -> None:
    found = assess(exact_sampler(), num_samples=500)
    assert found.verdict.grade == "doubtful"  # nothing independent stands beside it
    assert found.draws_are_exact and found.draws.shape == (500, 2) and found.true_log_z == 0
    assert abs(found.estimate.log_z) < 1e-5 and abs(found.eubo) < 1e-5
    text = str(found)
    assert "verdict: doubtful" in text and "true log Z" in text and found.verdict.reasons[0] in text
    independent = assess(exact_sampler(), num_samples=500, reference=reference(Gaussian([0.0, 0.0], 4.0), 500, seed=0))
    assert independent.verdict.grade == "trustworthy" and independent.reference is not None


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
