"""A pretrained sampler under a reward: what log Z is, what is reached, what is refused."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from diffsampler import FunctionTarget, InputError, Sampler, assess, fine_tune, fine_tuned, fit
from diffsampler.baseline import GaussianComponents
from diffsampler.behaviours import OnPolicy, WeightedPaths
from diffsampler.coordinates import AffineCoordinates
from diffsampler.families import Tempered
from diffsampler.fine_tuning import mean_reward
from diffsampler.losses import MaximumLikelihood, SubTrajectoryBalance, TrajectoryBalance
from diffsampler.networks import FourierFlow, FourierMLP
from diffsampler.processes import Underdamped, VariancePreserving
from diffsampler.processes.grids import JitteredGrid
from targets import Gaussian

Z_BOUND = 4.5  # a false alarm of 7e-6
QUIETLY = {"enable_progress_bar": False, "accelerator": "cpu"}
SLOPE = torch.tensor([1.0, -0.5]).double()
LOC, SCALE = torch.tensor([3.0, -2.0]).double(), torch.tensor([[0.5, 0.0], [1.0, 2.0]]).double()


def log_reward(x: torch.Tensor) -> torch.Tensor:
    return x @ SLOPE.to(x)


REWARD = FunctionTarget(log_reward, dim=2)


def pretrained(coordinates: AffineCoordinates | None = None, **parts: object) -> Sampler:
    """Draws N(0, I) exactly: a process that keeps it, and a control that is zero; or what coordinates make of it."""
    process = partial(VariancePreserving, sigma=1.0)
    parts = {"process": process, "control": FourierMLP, "flow": None, "grid": 12, **parts}
    return Sampler(Gaussian(mean=[0.0, 0.0]), coordinates=coordinates, **parts)


@pytest.mark.parametrize("in_coordinates", [False, True])
def test_log_z_is_the_log_of_the_mean_reward(in_coordinates: bool) -> None:
    coordinates = AffineCoordinates(LOC, SCALE) if in_coordinates else None
    reward = FunctionTarget(lambda x: 0.5 * log_reward(x), dim=2)
    tuned = fine_tuned(pretrained(coordinates), reward)
    # x ~ N(m, S): E[exp(a x)] = exp(a m + a S a / 2), log-weights of variance a S a.
    slope = 0.5 * (SCALE.T @ SLOPE if in_coordinates else SLOPE)
    truth = float(0.5 * slope @ slope + (0.5 * SLOPE @ LOC if in_coordinates else 0.0))
    estimate = tuned.estimate_log_z(20_000, seed=1)
    standard_error = math.sqrt(math.expm1(float(slope @ slope)) / 20_000)
    assert abs(estimate.log_z - truth) < Z_BOUND * standard_error
    # The means of w^2 and of w, squared, are known to 1.1 % and 0.8 %.
    assert estimate.ess == pytest.approx(math.exp(-float(slope @ slope)), rel=0.08)
    assert mean_reward(pretrained(coordinates), reward, 20_000, seed=1).estimate.log_z == estimate.log_z


def test_training_keeps_log_z_and_makes_weights_even() -> None:
    sampler = pretrained()
    before = [parameter.clone() for parameter in sampler.parameters()]
    tuned = fine_tune(sampler, REWARD, max_steps=80, lr=5e-3, ema_decay=0.0, **QUIETLY)
    estimate = tuned.estimate_log_z(5000, seed=1)
    assert estimate.ess > 0.85  # 0.29 before
    assert abs(estimate.log_z - 0.625) < Z_BOUND * math.sqrt((1 / estimate.ess - 1) / 5000)
    for old, parameter in zip(before, sampler.parameters(), strict=True):
        assert torch.equal(old, parameter)
    found = assess(tuned, 2000, reference=mean_reward(sampler, REWARD))
    assert found.verdict.grade == "trustworthy" and found.true_log_z is None


def test_a_reward_that_hardly_any_draw_has_is_assessed_with_doubt() -> None:
    far = FunctionTarget(lambda x: -0.5 * (x - 6.0).square().sum(-1) / 0.09, dim=2)
    sampler = pretrained()
    reference = mean_reward(sampler, far, 1000)
    assert len(reference.x) < 100
    found = assess(fine_tuned(sampler, far), 1000, reference=reference)
    assert found.verdict.grade != "trustworthy"
    assert any("too few to tell" in reason for reason in found.verdict.reasons)


def test_draws_density_is_normalised_in_the_coordinates_of_the_user() -> None:
    tuned = fine_tuned(pretrained(AffineCoordinates(LOC, SCALE)), REWARD)
    x = LOC + torch.tensor([[0.0, 0.0], [1.0, -1.0]]) @ SCALE.T
    exact = torch.distributions.MultivariateNormal(LOC, SCALE @ SCALE.T).log_prob(x)
    torch.testing.assert_close(tuned.log_prob(x, seed=0), exact, rtol=1e-4, atol=1e-4)


def test_a_reward_that_is_a_density_is_none_here() -> None:
    reward = Gaussian(mean=[1.0, 0.0])
    assert reward.log_z == 0.0 and reward.has_exact_samples
    tuned = fine_tuned(pretrained(), reward)
    assert tuned.target.log_z is None and not tuned.target.has_exact_samples
    # The integral of both densities: N(0; (1, 0), 2 I).
    truth = -math.log(4 * math.pi) - 0.25
    estimate = tuned.estimate_log_z(20_000, seed=0)
    assert abs(estimate.log_z - truth) < Z_BOUND * math.sqrt((1 / estimate.ess - 1) / 20_000)


@pytest.mark.parametrize("loss", [TrajectoryBalance, partial(SubTrajectoryBalance, 1.0)])
def test_balance_losses_train_it(loss: object) -> None:
    tuned = fine_tuned(pretrained(), REWARD, flow=FourierFlow)
    history = fit(tuned, 60, loss=loss(), behaviour=OnPolicy(), lr=5e-3, ema_decay=0.0, **QUIETLY)
    assert history[-1]["ess"] > 0.5  # 0.29 before


def test_it_is_loaded_into_one_made_alike(tmp_path: Path) -> None:
    sampler = pretrained()
    tuned = fine_tune(sampler, REWARD, max_steps=3, **QUIETLY)
    tuned.save(tmp_path / "tuned.ckpt")
    again = fine_tuned(sampler, REWARD)
    again.load_checkpoint(tmp_path / "tuned.ckpt")
    assert torch.equal(again.sample(4, seed=0), tuned.sample(4, seed=0))
    again.policy.control.load_state_dict(sampler.policy.control.state_dict())
    assert not torch.equal(again.sample(4, seed=0), tuned.sample(4, seed=0))


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="sampler must be a Sampler"):
        fine_tuned(REWARD, REWARD)
    with pytest.raises(InputError, match="reward must be a Target"):
        fine_tuned(pretrained(), log_reward)
    with pytest.raises(InputError, match="reward must have the sampler's dimension 2, got 3"):
        fine_tuned(pretrained(), FunctionTarget(log_reward, dim=3))
    with pytest.raises(InputError, match="support"):
        fine_tuned(pretrained(), FunctionTarget(log_reward, dim=2, support=(0, 1)))
    with pytest.raises(InputError, match="must not use the score"):
        fine_tuned(Sampler(Gaussian(mean=[0.0, 0.0]), grid=3), REWARD)
    with pytest.raises(InputError, match="momenta"):
        fine_tuned(pretrained(process=Underdamped, backward_control=FourierMLP), REWARD)
    with pytest.raises(InputError, match="fit it first"):
        fine_tuned(Sampler(Gaussian(mean=[0.0, 0.0])), REWARD)
    with pytest.raises(InputError, match="families"):
        fine_tuned(Sampler(Tempered(Gaussian(mean=[0.0, 0.0]))), REWARD)


def test_weighted_paths_are_draws_of_the_target() -> None:
    tuned = fine_tuned(pretrained(), REWARD)
    generator = torch.Generator().manual_seed(0)
    x = WeightedPaths(20_000).paths(tuned.dynamics, 5000, generator, 0.0).x[-1]
    # N(slope, I). The mean of 5000 drawn from weights of an effective 0.29 of 20 000: variances of both add.
    standard_error = math.sqrt(1 / 5000 + 1 / (0.29 * 20_000))
    assert ((x.mean(0) - SLOPE).abs() < Z_BOUND * standard_error).all()


def test_weighted_paths_refuse_times_that_change_and_densities_that_are_zero() -> None:
    sampler = pretrained(grid=JitteredGrid(4))
    with pytest.raises(InputError, match="JitteredGrid"):
        fit(sampler, 1, loss=MaximumLikelihood(), behaviour=WeightedPaths(), **QUIETLY)
    nowhere = fine_tuned(pretrained(), FunctionTarget(lambda x: torch.full_like(x[..., 0], -torch.inf), dim=2))
    with pytest.raises(InputError, match="zero at all 8 paths"):
        WeightedPaths(8).paths(nowhere.dynamics, 4, torch.Generator(), 0.0)


def test_a_mixture_is_tilted_by_weighted_points() -> None:
    loc = torch.tensor([[-5.0, 0.0], [5.0, 0.0], [0.0, 9.0]])
    mixture = GaussianComponents(loc, torch.eye(2).expand(3, 2, 2))
    x = mixture.sample(30_000, torch.Generator().manual_seed(0))
    # exp(0.2 x_0) below x_1 = 5: the third is gone; the others move by 0.2, and weigh e^-1 and e.
    log_weight = torch.where(x[:, 1] > 4.5, -torch.inf, 0.2 * x[:, 0])
    tilted = mixture.tilted(x, log_weight)
    assert tilted.loc.shape == (2, 2)
    # 10 000 points each of variance 1, and weights that differ by a fifth.
    torch.testing.assert_close(tilted.loc, loc[:2].double() + torch.tensor([0.2, 0.0]).double(), rtol=0, atol=0.06)
    share = 1 / (1 + math.exp(2.0))
    assert float(tilted.log_weight.exp()[0]) == pytest.approx(share, abs=0.02)
