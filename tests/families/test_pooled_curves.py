"""Curves by the draws of neighbours: what they give, exact values, and what is refused."""

import math
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.curves import log_z_curve, thermodynamics
from diffsampler.families import Coupled, Scalarised, Tempered
from diffsampler.networks import FourierMLP
from diffsampler.observables import Variance, estimate_observable
from diffsampler.processes import VariancePreserving
from targets import Gaussian, Phi4Hopping

BY_PREFERENCE = [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]
BETAS, BETWEEN = [0.9, 1.1, 1.4], [1.0, 1.25]  # all narrower than what an untrained sampler draws


def untrained(family: object) -> Sampler:
    """Its weights are exact all the same."""
    return Sampler(family, process=VariancePreserving, control=FourierMLP, flow=None, grid=6)


def quadratic() -> Sampler:
    """Energy 0.7 |x|^2 in three dimensions: log Z = 1.5 log(pi / (0.7 beta)), energy 1.5 / beta, heat capacity 1.5."""
    return untrained(Tempered(FunctionTarget(lambda x: -0.7 * x.square().sum(-1), 3), 0.5, 2.0))


def test_neighbours_give_exact_values_at_their_own_contexts_and_between() -> None:
    found = thermodynamics(quadratic(), BETAS, 4000, seed=1, between=BETWEEN)
    beta = torch.tensor([*BETAS, *BETWEEN], dtype=torch.float64)
    torch.testing.assert_close(found.beta, beta)
    errors = torch.tensor([one.variance for one in found.curve.estimates]).sqrt()
    # Fifteen figures, 1e-4 together.
    assert ((found.curve.log_z - 1.5 * (math.pi / (0.7 * beta)).log()).abs() < Z_BOUND * errors).all()
    assert ((found.energy - 1.5 / beta).abs() < Z_BOUND * found.energy_error).all()
    assert ((found.heat_capacity - 1.5).abs() < Z_BOUND * found.heat_capacity_error).all()
    assert [one is None for one in found.curve.own] == [False] * 3 + [True] * 2


def test_neighbours_narrow_intervals(tmp_path: Path) -> None:
    sampler = quadratic()
    alone, together = (log_z_curve(sampler, torch.tensor(BETAS).log(), 4000, pool=pool) for pool in (False, True))
    for k in range(len(BETAS)):
        assert together.own[k] == alone.own[k] == alone.estimates[k]
        assert together.estimates[k].variance < alone.estimates[k].variance
        assert together.estimates[k].num_target_evaluations >= 3 * 4000
    assert together.pool.x.shape == (12_000, 3) and "effective" in str(together)
    assert together.to_dict()["points"][0]["own"]["log_z"] == alone.estimates[0].log_z
    together.plot().savefig(tmp_path / "curve.png")


def test_far_contexts_are_no_neighbours() -> None:
    family = Tempered(FunctionTarget(lambda x: -0.5 * (x - 3).square().sum(-1), 8), 0.05, 50.0)
    curve = log_z_curve(untrained(family), [0.0], 500, between=[math.log(50.0)])
    assert curve.grades[1] != "trustworthy"
    assert any("contexts nearer" in step for step in curve.assessments[1].verdict.next_steps)


def test_preferences_share_draws_where_their_source_is_not_zero() -> None:
    """One reward is zero for x < 0: draws for it alone say nothing of the mass of the other there."""
    half = FunctionTarget(lambda x: torch.where(x[..., 0] > 0, -0.5 * x.square().sum(-1), -math.inf), 2)
    sampler = untrained(Scalarised([half, Gaussian(mean=[0.0, 0.0], covariance=1.0)], "sum"))
    curve = log_z_curve(sampler, [[1.0, 0.0], [0.5, 0.5]], 4000, between=[[0.0, 1.0], [0.2, 0.8]])
    exact = torch.tensor([math.pi, 0.5 * (math.pi + 1), 1.0, 0.2 * math.pi + 0.8]).log()
    errors = torch.tensor([one.variance for one in curve.estimates]).sqrt()
    assert ((curve.log_z - exact).abs() < Z_BOUND * errors).all()
    with pytest.raises(InputError, match=r"At the context \[0.5, 0.5\]: log_prob is not zero where it is for all"):
        log_z_curve(sampler, [[1.0, 0.0]], 4000, between=[[0.5, 0.5]])


class Perfect(Sampler):
    """Of the sum of rewards N((-4, 0), I) and N((4, 0), I): exact draws, with weights that vary a little.

    At one preference it may have lost the second mode.
    """

    blind_at = None

    def given(self, context: list[float]) -> Sampler:
        member, share = super().given(context), float(context[0])
        is_blind = share == self.blind_at

        def sample(n: int, generator: torch.Generator, **_: bool) -> tuple[Tensor, Tensor]:
            noise = torch.randn(n, 4, generator=generator, dtype=torch.float64)
            uniform = torch.rand(n, generator=generator, dtype=torch.float64) * (share if is_blind else 1.0)
            x = noise[:, :2] + torch.where(uniform < share, -4.0, 4.0).unsqueeze(-1) * torch.tensor([1.0, 0.0])
            return x, 0.3 * noise[:, 2] - 0.045 + (math.log(share) if is_blind else 0.0)

        member.sample = sample
        return member


def of_two_rewards() -> Perfect:
    rewards = [Gaussian(mean=[place, 0.0], covariance=1.0) for place in (-4.0, 4.0)]
    return Perfect(Scalarised(rewards, "sum"), process=VariancePreserving, control=FourierMLP, flow=None, grid=6)


def test_a_preference_that_needs_no_mode_does_not_hide_it_from_others() -> None:
    """Draws for one reward alone never see the other, and their weights are more even than any at each preference."""
    preferences = [[1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.0, 1.0]]
    curve = log_z_curve(of_two_rewards(), preferences, 2000, between=[[0.9, 0.1], [0.4, 0.6]])
    errors = torch.tensor([one.variance for one in curve.estimates]).sqrt()
    assert (curve.log_z.abs() < Z_BOUND * errors).all() and errors.max() < 0.02  # six figures


def test_a_context_whose_own_draws_differ_from_those_of_its_neighbours_is_doubted() -> None:
    sampler = of_two_rewards()
    said = "Its own draws and those of its neighbours differ by -0.6"  # log 0.5
    assert not any(said in str(one) for one in log_z_curve(sampler, BY_PREFERENCE, 2000).assessments)
    sampler.blind_at = 0.5
    curve = log_z_curve(sampler, BY_PREFERENCE, 2000)
    assert [said in str(one) for one in curve.assessments] == [False, True, False]
    assert curve.grades[1] != "trustworthy"
    # Nor does what it has lost make others lose it.
    errors = torch.tensor([one.variance for one in curve.estimates]).sqrt()
    assert (curve.log_z.abs() < Z_BOUND * errors).all() and errors.max() < 0.02


def test_other_families_pool_when_they_are_asked_to() -> None:
    sampler = untrained(Coupled(Phi4Hopping, {"kappa": (0.1, 0.2)}, shape=(2, 2)))
    before, alone = sampler.num_target_evaluations, log_z_curve(sampler, [0.14, 0.16], 1000)
    assert alone.estimates == list(alone.own)
    together = log_z_curve(sampler, [0.14, 0.16], 1000, between=[0.15])
    for k in (0, 1):
        assert together.own[k].log_z == alone.own[k].log_z
        assert together.estimates[k].variance < alone.estimates[k].variance
    # Two contexts' draws, each of them at its own context, the other's, and one more.
    assert together.pool.num_target_evaluations - before == 2 * 1000 + 2 * 3 * 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"between": [0.1], "num_samples": 99}, "between needs draws that are pooled, 100 at each"),
        ({"between": [0.1], "pool": False}, "between needs draws that are pooled"),
        ({"between": 0.1}, "between must be a list of contexts, got 0.1"),
        ({"between": [[0.1, 0.2]]}, "1 finite number "),
        ({"pool": "yes"}, "pool must be True or False"),
    ],
    ids=str,
)
def test_what_cannot_be_pooled_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        log_z_curve(quadratic(), [0.0], **options)
    with pytest.raises(InputError, match="between must be a list of inverse temperatures"):
        thermodynamics(quadratic(), [1.0], between=2.0)
    with pytest.raises(InputError, match="betas must be a list of inverse temperatures"):
        thermodynamics(quadratic(), ["warm"])


def test_errors_of_few_draws_are_wider() -> None:
    found = thermodynamics(quadratic(), [1.0], 100, seed=1)
    energies, used = -found.curve.pool.statistics[:, 0], found.curve.weighted(0)
    energies = energies[used.rows].unsqueeze(-1)
    spread = estimate_observable("spread", Variance(lambda x: x[:, 0]), energies, used.log_weight)
    assert float(found.heat_capacity) == pytest.approx(float(spread.value))
    # By Student's t of as many draws as decide it.
    assert float(found.heat_capacity_error) == pytest.approx(float(spread.half_width) / 1.959964)
    assert float(found.heat_capacity_error) > 1.02 * float(spread.standard_error)
