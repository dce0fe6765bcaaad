"""The verdict: each fault is named and graded, and a sound estimate passes."""

import math
from dataclasses import replace

import pytest
import torch

from diffsampler.log_z import LogZEstimate, estimate_log_z
from diffsampler.log_z.verdict import GRADES, judge, share_not_covered
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
        ({"khat": 0.8, "high": math.inf}, BAD, "too heavy-tailed"),
        ({"khat": 0.6, "ess": 0.2}, DOUBTFUL, "heavy-tailed"),
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


def test_more_draws_of_a_reference_are_no_missing_modes(estimate: LogZEstimate, generator: torch.Generator) -> None:
    """Neighbours among many are nearer than among few: in one dimension the most."""
    few, many = (torch.randn(n, 1, generator=generator) for n in (1000, 20_000))
    verdict = judge(estimate, estimate, few, torch.zeros(1000), many)
    assert verdict.grade == GOOD, verdict


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


@pytest.mark.parametrize("khat", [0.6, 0.8])
def test_weights_that_are_even_may_have_a_heavy_tail(estimate: LogZEstimate, khat: float) -> None:
    # Half of the draws are effective, and the interval stands.
    verdict = judge(replace(estimate, khat=khat, ess=0.5), estimate)
    assert verdict.grade == GOOD and verdict.next_steps == []
    assert judge(replace(estimate, khat=khat, ess=0.25), estimate).grade == DOUBTFUL


@pytest.mark.parametrize(("unseen", "grade"), [(0.0, GOOD), (0.009, GOOD), (0.02, DOUBTFUL), (0.6, DOUBTFUL)])
def test_mass_that_one_search_alone_has_found(estimate: LogZEstimate, unseen: float, grade: str) -> None:
    verdict = judge(estimate, replace(estimate, unseen=unseen))
    assert verdict.grade == grade
    if grade != GOOD:
        assert f"{unseen:.1%} of the mass may be unseen" in verdict.reasons[0]
        assert any("another seed" in step and "Target.support" in step for step in verdict.next_steps)


@pytest.mark.parametrize(("half", "grade"), [(0.05, GOOD), (0.099, GOOD), (0.2, DOUBTFUL), (3.0, DOUBTFUL)])
def test_a_wide_reference_is_weak_support(estimate: LogZEstimate, half: float, grade: str) -> None:
    wide = replace(estimate, low=estimate.log_z - half, high=estimate.log_z + half)
    verdict = judge(estimate, wide)
    assert verdict.grade == grade
    if grade != GOOD:
        assert f"known to +- {half:.2f} only" in verdict.reasons[0] and "Reparametrise" in verdict.next_steps[0]
    # A wide one that is far off all the same says that something is wrong.
    assert judge(estimate, replace(wide, **shifted(wide, 5 * half + 0.2))).grade == BAD


def shifted(estimate: LogZEstimate, by: float) -> dict[str, float]:
    return {name: getattr(estimate, name) + by for name in ("log_z", "low", "high")}


@pytest.mark.parametrize(("gap", "grade"), [(0.1, GOOD), (2.9, GOOD), (3.5, DOUBTFUL), (1000.0, DOUBTFUL)])
def test_an_elbo_far_below(estimate: LogZEstimate, gap: float, grade: str) -> None:
    verdict = judge(replace(estimate, elbo=estimate.log_z - gap), estimate)
    assert verdict.grade == grade
    if grade != GOOD:
        assert f"The ELBO is {gap:.1f} nats below log Z" in verdict.reasons[0]
        assert any("max_steps" in step for step in verdict.next_steps)


@pytest.mark.parametrize("exact", [False, True])
def test_exact_draws_are_an_independent_estimate(exact: bool, generator: torch.Generator) -> None:
    # Log-normal weights, and their counterpart under the target, as for a Gaussian off by a shift.
    log_weight = 0.5 * torch.randn(4000, generator=generator) - 0.125 + 3.0
    rolled_back = 0.5 * torch.randn(2000, generator=generator) + 0.125 + 3.0
    verdict = judge(estimate_log_z(log_weight), log_weight=log_weight, rolled_back=rolled_back, draws_are_exact=exact)
    assert verdict.grade == (GOOD if exact else DOUBTFUL), verdict
    assert any("No independent estimate" in reason for reason in verdict.reasons) != exact
    assert any("agrees with the reference" in reason for reason in verdict.reasons) == exact
    # Draws in a place of a fifth of the mass that the sampler never visits: 1 / w is next to nothing there.
    rolled_back[:400] = 50.0
    missed = judge(estimate_log_z(log_weight), log_weight=log_weight, rolled_back=rolled_back, draws_are_exact=exact)
    assert missed.grade == BAD and any("Modes or tails are missing" in reason for reason in missed.reasons)
    # log(5 / 4) is what E[1 / w] = 1 / Z says is missing.
    difference = -math.log(0.8)
    if exact:
        (reason,) = [reason for reason in missed.reasons if "nats from the reference" in reason]
        # Three standard errors of 0.012 and 0.015 together.
        assert abs(float(reason.split()[2]) + difference) < 0.06 and "one of them is wrong" in reason


def test_few_exact_draws_are_none(estimate: LogZEstimate) -> None:
    few = judge(estimate, rolled_back=torch.zeros(24), draws_are_exact=True)
    assert few.grade == DOUBTFUL and any("No independent estimate" in reason for reason in few.reasons)
    nothing = judge(estimate, rolled_back=torch.full((100,), -math.inf), draws_are_exact=True)
    assert nothing.grade == DOUBTFUL


def test_a_given_reference_comes_before_exact_draws(estimate: LogZEstimate) -> None:
    far = replace(estimate, **shifted(estimate, 2.0))
    verdict = judge(estimate, far, rolled_back=torch.zeros(100), draws_are_exact=True)
    assert verdict.grade == BAD and "-2.000 nats from the reference" in verdict.reasons[0]


def test_every_grade_below_the_first_says_what_to_do(estimate: LogZEstimate, generator: torch.Generator) -> None:
    one, both = draws([0.999999, 0.000001], generator), draws([0.7, 0.3], generator)
    flat = torch.zeros(2000)
    drifting = [{"log_z": v, "low": v - 0.1, "high": v + 0.1} for v in (-0.5, -0.5, -0.5, 0.0, 0.0)]
    heavier = torch.full((2000,), 9.0)
    faults = {
        "alone": judge(estimate),
        "no interval": judge(replace(estimate, khat=0.9, high=math.inf), estimate),
        "heavy": judge(replace(estimate, khat=0.6, ess=0.2), estimate),
        "few": judge(replace(estimate, ess=0.03), estimate),
        "too few": judge(replace(estimate, ess=0.004), estimate),
        "no shape": judge(replace(estimate, khat=math.nan, num_samples=24), estimate),
        "one family": judge(replace(estimate, khat=math.nan, high=math.inf), estimate),
        "gap": judge(replace(estimate, elbo=-50.0), estimate),
        "unseen": judge(estimate, replace(estimate, unseen=0.3)),
        "wide": judge(estimate, replace(estimate, low=estimate.log_z - 1, high=estimate.log_z + 1)),
        "reference without": judge(estimate, replace(estimate, high=math.inf)),
        "disagrees a little": judge(estimate, replace(estimate, **shifted(estimate, 0.08))),
        "disagrees": judge(estimate, replace(estimate, **shifted(estimate, 0.7))),
        "misses": judge(estimate, estimate, one, flat, both),
        "sees more": judge(estimate, estimate, both, flat, one),
        "drifts": judge(estimate, estimate, history=drifting),
        "outweighed": judge(estimate, estimate, log_weight=flat, rolled_back=heavier),
        "outweighed in part": judge(
            estimate,
            estimate,
            log_weight=0.3 * torch.randn(2000, generator=generator),
            rolled_back=heavier * (one[:, 0] > -3),
        ),
    }
    for name, verdict in faults.items():
        assert verdict.grade != GOOD and verdict.next_steps, (name, verdict)
        assert len(set(verdict.next_steps)) == len(verdict.next_steps), name
        assert all(step.endswith(".") for step in verdict.next_steps), name
    assert judge(estimate, estimate).next_steps == []
    # The worst comes first, with its reason.
    both_faults = judge(replace(estimate, khat=0.9, high=math.inf), replace(estimate, unseen=0.3))
    assert both_faults.grade == BAD and "heavy-tailed" in both_faults.reasons[0]
    assert "Train longer" in both_faults.next_steps[0] and "Search again" in both_faults.next_steps[-1]
