"""Curves by the draws of neighbours: what they give, exact values, and what is refused."""

import math
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.curves import log_z_curve, thermodynamics
from diffsampler.families import Coupled, Scalarised, Tempered
from diffsampler.networks import FourierMLP
from diffsampler.processes import VariancePreserving
from targets import Gaussian, Phi4Hopping

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


def test_preferences_share_draws_but_none_where_their_source_is_zero() -> None:
    """One reward is zero for x < 0: draws for it alone say nothing of the mass of the other there."""
    half = FunctionTarget(lambda x: torch.where(x[..., 0] > 0, -0.5 * x.square().sum(-1), -math.inf), 2)
    sampler = untrained(Scalarised([half, Gaussian(mean=[0.0, 0.0], covariance=1.0)], "sum"))
    curve = log_z_curve(sampler, [[1.0, 0.0], [0.5, 0.5]], 4000, between=[[0.0, 1.0], [0.2, 0.8]])
    exact = torch.tensor([math.pi, 0.5 * (math.pi + 1), 1.0, 0.2 * math.pi + 0.8]).log()
    errors = torch.tensor([one.variance for one in curve.estimates]).sqrt()
    assert ((curve.log_z - exact).abs() < Z_BOUND * errors).all()
    assert float(curve.weighted(2).shares[0]) == 0


def test_other_families_pool_when_they_are_asked_to() -> None:
    sampler = untrained(Coupled(Phi4Hopping, {"kappa": (0.1, 0.2)}, shape=(2, 2)))
    before, alone = sampler.num_target_evaluations, log_z_curve(sampler, [0.14, 0.16], 1000)
    assert alone.estimates == list(alone.own)
    together = log_z_curve(sampler, [0.14, 0.16], 1000, between=[0.15])
    for k in (0, 1):
        assert together.own[k].log_z == alone.own[k].log_z
        assert together.estimates[k].variance < alone.estimates[k].variance
    # Two contexts' draws, and each at its own context and at two more.
    assert together.pool.num_target_evaluations - before > 2 * 1000 + 6 * 1000


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
