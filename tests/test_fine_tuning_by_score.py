"""A pretrained sampler whose control uses the score of its own target, under a reward: it stays that score."""

import copy
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from diffsampler import FunctionTarget, InputError, Sampler, Target, assess, fine_tune, fine_tuned, fit
from diffsampler.behaviours import OnPolicy, WeightedPaths
from diffsampler.coordinates import AffineCoordinates, SearchedCoordinates
from diffsampler.fine_tuning import mean_reward, product_sampler
from diffsampler.losses import (
    AdjointMatching,
    HardLabels,
    LogVariance,
    Objective,
    OrderPreserving,
    PathwiseReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
    TrustRegionLogVariance,
)
from diffsampler.networks import CoordinatewiseControl, ForwardLookingFlow, FourierMLP, LangevinControl, PairForces
from diffsampler.paths import ForwardMeasure, evaluate, log_pf_of, rollout, sequential_rollout
from diffsampler.paths.rollback import rolled_back_log_weight
from diffsampler.paths.rollout import differentiable_rollout
from diffsampler.processes import Bridge, PinnedBrownian, VariancePreserving
from diffsampler.rewards import Product
from diffsampler.spaces.kernels import Kernel
from targets import Gaussian

Z_BOUND = 4.5  # a false alarm of 7e-6
QUIETLY = {"enable_progress_bar": False, "accelerator": "cpu"}
SLOPE = torch.tensor([0.8, -0.4]).double()
MEAN, COVARIANCE = torch.tensor([1.5, 0.5]).double(), torch.tensor([[0.5, 0.2], [0.2, 0.4]]).double()
LOC, SCALE = torch.tensor([1.0, 0.0]).double(), torch.tensor([[0.7, 0.0], [0.3, 0.6]]).double()
NUM_STEPS = 8


def log_reward(x: torch.Tensor) -> torch.Tensor:
    return x @ SLOPE.to(x)


REWARD = FunctionTarget(log_reward, dim=2)
# What would not show where the reward's own score was used: its score says nothing of the density.
UNDIFFERENTIABLE = FunctionTarget(log_reward, dim=2, differentiable=False)


def pretrained(target: Target | None = None, **parts: object) -> Sampler:
    """A control that is half the score at the end: not exact, and its draws are Gaussian where the target is."""
    control = partial(LangevinControl, network=FourierMLP, initial_gate=0.5)
    parts = {"process": PinnedBrownian, "control": control, "flow": None, "grid": NUM_STEPS, **parts}
    return Sampler(target or Gaussian(MEAN, COVARIANCE), **parts)


def in_coordinates() -> Sampler:
    return pretrained(coordinates=AffineCoordinates(LOC, SCALE))


def moments_of_draws(sampler: Sampler) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of what `in_coordinates` draws: every step is linear in z, and adds independent noise."""

    def kernel(k: int, z: torch.Tensor) -> Kernel:
        score = SCALE.T @ torch.linalg.solve(COVARIANCE, MEAN - LOC - SCALE @ z)
        return sampler.policy.forward_kernel(times[k], times[k + 1], z, 0.5 * times[k] * score, None)

    times = torch.linspace(0.0, 1.0, NUM_STEPS + 1).double()
    mean, covariance = torch.zeros(2).double(), torch.zeros(2, 2).double()
    for k in range(NUM_STEPS):
        at_zero = kernel(k, torch.zeros(2).double()).mean
        linear = torch.stack([kernel(k, row).mean - at_zero for row in torch.eye(2).double()], -1)
        noise = kernel(k, mean).std.double().expand(2).square().diag()
        mean, covariance = linear @ mean + at_zero, linear @ covariance @ linear.T + noise
    return LOC + SCALE @ mean, SCALE @ covariance @ SCALE.T


def positive() -> Sampler:
    return pretrained(FunctionTarget(lambda x: (x.log() - 2 * x).sum(-1), dim=2, support=(0.0, math.inf)))


def particles() -> Sampler:
    def log_prob(x: torch.Tensor) -> torch.Tensor:
        first, second = x[..., :2], x[..., 2:]
        return -0.5 * ((first - second).norm(dim=-1) - 1.5).square() * 4

    return moved(
        pretrained(FunctionTarget(log_prob, dim=4, mean_free=2), control=partial(PairForces, width=8, use_score=True))
    )


def bridge() -> Sampler:
    return pretrained(process=Bridge)


def coordinatewise() -> Sampler:
    return moved(pretrained(control=CoordinatewiseControl))


def moved(sampler: Sampler) -> Sampler:
    """With a control that does something, where it is zero before training."""
    assert sampler.policy.uses_score
    with torch.no_grad():
        for parameter in sampler.policy.control.parameters():
            parameter.add_(0.1)
    return sampler


@pytest.mark.parametrize("make", [pretrained, in_coordinates, positive, particles, bridge, coordinatewise])
def test_before_training_it_draws_as_the_pretrained_one_and_weighs_by_the_reward_alone(make: object) -> None:
    sampler = make()
    reward = FunctionTarget(lambda x: x[..., 0] - 0.5 * x[..., 1].square(), sampler.target.dim, differentiable=False)
    tuned = fine_tuned(sampler, reward)
    x, log_weight = tuned.sample(64, seed=0, return_log_weights=True)
    assert torch.equal(x, sampler.sample(64, seed=0))
    # Each step's two densities are the same function, of numbers of order 1 in float32.
    torch.testing.assert_close(log_weight, reward.log_prob(x.double()), rtol=0, atol=1e-5)
    path = rollout(tuned.dynamics, 64, torch.Generator().manual_seed(1))
    again = evaluate(tuned.dynamics, path).log_weight
    torch.testing.assert_close(again, tuned.density.log_prob(path.x[-1]), rtol=0, atol=1e-5)


def test_so_does_a_walk_in_populations_or_with_gradients() -> None:
    tuned = fine_tuned(pretrained(), REWARD, flow=ForwardLookingFlow)
    x, log_weight = sequential_rollout(tuned.dynamics, 64, ess_threshold=1e-9, generator=torch.Generator())
    torch.testing.assert_close(log_weight, log_reward(x.double()), rtol=0, atol=1e-5)
    found = differentiable_rollout(tuned.dynamics, 64, torch.Generator())
    torch.testing.assert_close(found.log_weight, log_reward(found.path.x[-1].double()), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.path.score, Gaussian(MEAN, COVARIANCE).score(found.path.x))


def test_evaluations_are_those_of_ends_for_the_reward_and_of_states_for_the_pretrained_density() -> None:
    tuned = fine_tuned(pretrained(), UNDIFFERENTIABLE)
    tuned.weighted_draws(50)
    assert tuned.num_score_evaluations == 50 * (NUM_STEPS + 1)
    assert tuned.num_target_evaluations <= 50 + 16  # and a few again, in float64
    before = tuned.num_target_evaluations, tuned.num_score_evaluations
    evaluate(tuned.dynamics, rollout(tuned.dynamics, 50))  # the score of the rollout serves both kernels
    assert tuned.num_target_evaluations - before[0] == 50
    assert tuned.num_score_evaluations - before[1] == 50 * (NUM_STEPS + 1)
    assert pretrained().num_score_evaluations == 0


def test_paths_that_are_drawn_again_bring_their_scores() -> None:
    tuned, behaviour = fine_tuned(pretrained(), UNDIFFERENTIABLE), WeightedPaths(32)
    for num_new in (32, 2):  # a quarter of a step's paths is new
        before = tuned.num_score_evaluations
        path = behaviour.paths(tuned.dynamics, 8, torch.Generator().manual_seed(0), 0.0)
        evaluate(tuned.dynamics, path)
        assert tuned.num_score_evaluations - before == num_new * (NUM_STEPS + 1)
    torch.testing.assert_close(path.score, Gaussian(MEAN, COVARIANCE).score(path.x))
    again = WeightedPaths(32)
    again.load_state_dict(behaviour.state_dict())
    assert torch.equal(again.score, behaviour.score)


def test_log_z_is_the_mean_reward_over_draws_trained_or_not() -> None:
    sampler = in_coordinates()
    mean, covariance = moments_of_draws(sampler)
    variance = float(SLOPE @ covariance @ SLOPE)
    truth = float(SLOPE @ mean) + 0.5 * variance
    tuned = fine_tuned(sampler, REWARD)
    before = tuned.estimate_log_z(10_000, seed=1)
    # Log-weights are normal: w has the relative variance e^v - 1.
    assert abs(before.log_z - truth) < Z_BOUND * math.sqrt(math.expm1(variance) / 10_000)
    fit(tuned, 15, loss=LogVariance(), behaviour=OnPolicy(), batch_size=64, lr=2e-2, ema_decay=0.0, **QUIETLY)
    after = tuned.estimate_log_z(10_000, seed=1)
    assert after.ess > 0.5 * (1 + before.ess)
    assert abs(after.log_z - truth) < Z_BOUND * math.sqrt((1 / after.ess - 1) / 10_000)


def test_a_product_is_weighed_by_both_densities_and_walks_by_the_score_of_the_first() -> None:
    tuned = fine_tuned(in_coordinates(), REWARD)
    product = product_sampler(tuned)
    assert torch.equal(product.sample(9, seed=0), tuned.sample(9, seed=0))
    # The integral of a Gaussian times exp(a x).
    truth = float(SLOPE @ MEAN + 0.5 * SLOPE @ COVARIANCE @ SLOPE)
    estimate = product.estimate_log_z(10_000, seed=1)
    # The ESS of 200 000 draws is 0.138: weights of relative variance 6.3.
    assert abs(estimate.log_z - truth) < Z_BOUND * math.sqrt(6.3 / 10_000)
    fit(product, 2, loss=AdjointMatching(64), behaviour=OnPolicy(), batch_size=16, **QUIETLY)
    again = fine_tuned(product, REWARD)
    x, log_weight = again.sample(9, seed=0, return_log_weights=True)
    assert torch.equal(x, product.sample(9, seed=0))
    torch.testing.assert_close(log_weight, log_reward(x.double()), rtol=0, atol=1e-5)
    # A warm start for another density takes that one's score, as any does.
    product.move_to(Gaussian(mean=[0.0, 0.0]))
    plain = in_coordinates()
    plain.move_to(Gaussian(mean=[0.0, 0.0]))
    plain.policy.load_state_dict(product.policy.state_dict())
    assert torch.equal(product.sample(9, seed=0), plain.sample(9, seed=0))
    assert product.num_score_evaluations == 0


def test_a_product_by_itself_is_walked_on_by_its_own_score(tmp_path: Path) -> None:
    target = Product(Gaussian(MEAN, COVARIANCE), REWARD)
    alone, moved_there = pretrained(target), product_sampler(fine_tuned(pretrained(), REWARD))
    moved_there.move_to(target)
    for sampler in (alone, moved_there, fine_tuned(alone, REWARD)):
        path = rollout(sampler.dynamics, 9, torch.Generator().manual_seed(0))
        torch.testing.assert_close(path.score, target.score(path.x))
    file = tmp_path / "product.ckpt"
    product_sampler(fine_tuned(pretrained(), REWARD)).save(file)
    with pytest.raises(InputError, match="made otherwise"):
        alone.load_checkpoint(file)
    with pytest.raises(InputError, match="Product has differentiable=False, but control"):
        pretrained(Product(Gaussian(MEAN, COVARIANCE), UNDIFFERENTIABLE))


def test_it_is_fine_tuned_again_and_goes_on_with_another_reward() -> None:
    tuned = moved(fine_tuned(in_coordinates(), REWARD))
    twice = fine_tuned(tuned, UNDIFFERENTIABLE)
    twice.sample(9, seed=0)
    twice.move_to(UNDIFFERENTIABLE)
    assert twice.num_target_evaluations == twice.num_score_evaluations == 0
    x, log_weight = twice.sample(9, seed=0, return_log_weights=True)
    assert torch.equal(x, tuned.sample(9, seed=0))
    torch.testing.assert_close(log_weight, log_reward(x.double()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [TrajectoryBalance(), partial(SubTrajectoryBalance, 1.0)(), TrustRegionLogVariance(16), PathwiseReverseKL(True)],
)
def test_losses_train_it(loss: Objective) -> None:
    tuned = fine_tuned(pretrained(), REWARD, flow=ForwardLookingFlow)
    before = tuned.sample(9, seed=0)
    fit(tuned, 2, loss=loss, behaviour=OnPolicy(), batch_size=16, **QUIETLY)
    assert not torch.equal(before, tuned.sample(9, seed=0))


def test_comparisons_alone_train_it() -> None:
    draws = []
    for reward in (REWARD, FunctionTarget(lambda x: log_reward(x).exp(), dim=2, differentiable=False)):
        tuned = fine_tuned(pretrained(), reward)
        fit(tuned, 20, loss=OrderPreserving(HardLabels()), behaviour=OnPolicy(), batch_size=32, lr=2e-2, **QUIETLY)
        draws.append(tuned.sample(2000, seed=0))
    assert torch.equal(*draws)  # which of two rewards is larger is all that is learned from
    assert log_reward(draws[0]).mean() > log_reward(pretrained().sample(2000, seed=0)).mean() + 0.1


def test_a_product_is_fitted_to_paths_that_are_walked_back_by_a_learned_kernel() -> None:
    tuned = fine_tuned(bridge(), REWARD)
    product = product_sampler(tuned)
    before = product.num_score_evaluations
    path = product.rollback(torch.zeros(5, 2))
    assert product.num_score_evaluations - before == 5 * (NUM_STEPS + 1)
    x, dynamics = path.x.flatten(0, 1), product.dynamics
    torch.testing.assert_close(path.score.flatten(0, 1), Gaussian(MEAN, COVARIANCE).score(x))
    torch.testing.assert_close(evaluate(dynamics, path).log_prob, product.target.log_prob(path.x[-1].double()))


def test_single_steps_of_paths_that_are_walked_back_are_those_of_all() -> None:
    product = product_sampler(fine_tuned(pretrained(), REWARD))
    path, step, row = product.rollback(torch.zeros(3, 2)), torch.tensor([0, 4, 7]), torch.tensor([2, 0, 1])
    assert path.score is None
    found = log_pf_of(product.dynamics, path, step, row)
    torch.testing.assert_close(found, evaluate(product.dynamics, path).log_pf[step, row])


def test_what_walks_back_for_a_verdict_is_not_counted() -> None:
    tuned = fine_tuned(pretrained(), REWARD)
    rolled_back_log_weight(tuned.dynamics, torch.zeros(3, 2))
    assert tuned.num_target_evaluations == tuned.num_score_evaluations == 0


def test_a_budget_is_one_of_rewards() -> None:
    tuned, method = fine_tuned(pretrained(), UNDIFFERENTIABLE), {"loss": LogVariance(), "behaviour": OnPolicy()}
    # The check at the start takes 256 (2 + 1) of these. It would take 256 (2 * 9 + 1) if scores counted, and 1340 more
    # to see whether a density has an integral.
    fit(tuned, 2, batch_size=16, num_eval_samples=50, max_target_evaluations=1500, **method, **QUIETLY)
    assert tuned.num_target_evaluations <= 1500 < tuned.num_score_evaluations


def test_a_score_that_needs_float64_has_it() -> None:
    torch.set_default_dtype(torch.float32)

    def log_prob(x: torch.Tensor) -> torch.Tensor:  # float32 knows both terms to 8 nats
        return torch.stack([1e8 - (x - shift).square().sum(-1) for shift in (-1, 1)]).logsumexp(0)

    sampler = pretrained(FunctionTarget(log_prob, dim=2))
    sampler.weighted_draws(100, torch.Generator().manual_seed(1))
    assert sampler.counter.needs_float64
    assert torch.equal(fine_tuned(sampler, REWARD).sample(9, seed=0), sampler.sample(9, seed=0))


def test_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    method = {"loss": LogVariance(), "behaviour": OnPolicy(), "batch_size": 16, "steps_per_epoch": 2, **QUIETLY}
    tuned, again = (fine_tuned(pretrained(), UNDIFFERENTIABLE) for _ in range(2))
    kept = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1)
    fit(tuned, 4, num_eval_samples=50, callbacks=[kept], enable_checkpointing=True, **method)
    fit(again, 4, num_eval_samples=50, ckpt_path=str(tmp_path / "step=2.ckpt"), **method)
    assert again.num_score_evaluations == tuned.num_score_evaluations > 0
    assert torch.equal(again.sample(9, seed=0), tuned.sample(9, seed=0))


def test_a_copy_in_double_precision_and_on_another_device() -> None:
    torch.set_default_dtype(torch.float32)
    sampler = in_coordinates().double()
    tuned = copy.deepcopy(fine_tuned(sampler, REWARD))
    x, log_weight = tuned.sample(9, seed=0, return_log_weights=True)
    assert torch.equal(x, sampler.sample(9, seed=0)) and x.dtype == torch.float64
    torch.testing.assert_close(log_weight, log_reward(x), rtol=0, atol=1e-12)
    tuned.to("meta")  # as on a GPU: the pretrained density goes along
    score = tuned.guide.log_prob_and_score(torch.zeros(3, 2, device="meta", dtype=torch.float64))[1]
    assert score.shape == (3, 2) and score.device.type == "meta"


def test_fine_tuning_leaves_the_tensors_of_both_targets_as_they_are() -> None:
    for default in (torch.float32, torch.float64):  # parts are made in this, and become the other's
        torch.set_default_dtype(torch.float32)
        sampler, reward = pretrained(), Gaussian(mean=[0.1, 0.2])
        torch.set_default_dtype(default)
        assert product_sampler(fine_tuned(sampler, reward)).dtype == torch.float32
        assert sampler.target.mean.dtype == reward.mean.dtype == torch.float64


def test_found_coordinates_keep_their_digits_in_double_precision() -> None:
    torch.set_default_dtype(torch.float32)  # in which parts are made
    target = Gaussian(MEAN, COVARIANCE)
    coordinates = partial(SearchedCoordinates, num_points=50)
    sampler = pretrained(target, process=VariancePreserving, coordinates=coordinates)
    sampler.search(seed=0, max_evaluations=1)
    sampler.double()
    assert torch.equal(fine_tuned(sampler, REWARD).sample(9, seed=0), sampler.sample(9, seed=0))


def test_its_own_density_is_that_of_its_draws() -> None:
    """Of a pretrained sampler that walks by score alone, by the probability flow, before any training."""
    sampler = in_coordinates()
    with torch.no_grad():
        sampler.policy.control.gate.output.bias.add_(0.2)  # at the start, too
    x = torch.tensor([[1.0, 0.5]])
    tuned = fine_tuned(sampler, UNDIFFERENTIABLE)
    one, other = (found.log_prob(x, seed=0, tolerance=0.3) for found in (tuned, sampler))
    torch.testing.assert_close(one, other)


def test_it_is_loaded_into_one_made_alike(tmp_path: Path) -> None:
    sampler = in_coordinates()
    tuned = fine_tune(sampler, REWARD, max_steps=2, loss=LogVariance(), behaviour=OnPolicy(), batch_size=64, **QUIETLY)
    tuned.save(tmp_path / "tuned.ckpt")
    again = fine_tuned(sampler, REWARD)
    again.load_checkpoint(tmp_path / "tuned.ckpt")
    assert again.num_score_evaluations == tuned.num_score_evaluations > 0
    for one, other in zip(*(s.sample(9, seed=0, return_log_weights=True) for s in (again, tuned)), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(again.sample(9, seed=0), sampler.sample(9, seed=0))


def test_scores_of_the_pretrained_density_that_fail_are_told(tmp_path: Path) -> None:
    class Broken(Gaussian):
        def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            log_prob, score = super().log_prob_and_score(x)
            return log_prob, torch.where(x[..., :1] > 1, math.nan, score)

    sampler = pretrained(Broken(MEAN, COVARIANCE))
    tuned = fine_tune(sampler, REWARD, 2, loss=LogVariance(), behaviour=OnPolicy(), batch_size=64, **QUIETLY)
    tuned.save(tmp_path / "tuned.ckpt")
    again = fine_tuned(sampler, REWARD)
    again.load_checkpoint(tmp_path / "tuned.ckpt")
    for found in (tuned, again):
        num_before = found.guide.num_invalid
        assert num_before > 0
        (said,) = [text for text in found.estimate_log_z(50, seed=0).warnings if "for its score" in text]
        assert found.guide.num_invalid > num_before
        assert said.startswith(f"At {found.guide.num_invalid:,} of {found.num_score_evaluations:,} evaluations of the")
    assert not any("for its score" in text for text in fine_tuned(pretrained(), REWARD).estimate_log_z(50).warnings)


def test_a_measure_by_score_is_refused_where_nobody_knows_of_which_density() -> None:
    measure = ForwardMeasure(copy.deepcopy(pretrained().policy))
    with pytest.raises(InputError, match=r"takes a score, and not that of the target: take fine_tuned"):
        pretrained(REWARD, measure=measure)


@pytest.mark.slow
def test_particles_are_fine_tuned_by_their_forces_towards_longer_bonds() -> None:
    """Two in the plane, at a distance r: what both densities integrate to is known by quadrature over r."""

    def bond(x: torch.Tensor) -> torch.Tensor:
        return (x[..., :2] - x[..., 2:]).norm(dim=-1)

    target = FunctionTarget(lambda x: -4 * (bond(x) - 1.5).square(), dim=4, mean_free=2)
    control = partial(PairForces, width=8, use_score=True)
    sampler = pretrained(target, control=control, process=VariancePreserving, grid=24)
    method = {"behaviour": OnPolicy(), "lr": 1e-2, "batch_size": 256, "ema_decay": 0.0, **QUIETLY}
    fit(sampler, 150, loss=LogVariance(), **method)
    r = torch.linspace(0.0, 6.0, 100_001).double()
    before = r.log() - 4 * (r - 1.5).square()
    truth = float((before + 2 * r).logsumexp(0) - before.logsumexp(0))
    tuned = fine_tune(sampler, FunctionTarget(lambda x: 2 * bond(x), dim=4), 100, loss=LogVariance(), **method)
    product = product_sampler(tuned)
    first, second = (found.estimate_log_z(20_000, seed=1) for found in (sampler, product))
    assert min(first.ess, second.ess) > 0.5
    error = math.sqrt(sum((1 / found.ess - 1) / 20_000 for found in (first, second)))
    assert abs(second.log_z - first.log_z - truth) < Z_BOUND * error
    verdict = assess(tuned, 5000, reference=mean_reward(sampler, tuned.target.given)).verdict
    assert verdict.grade != "not to be trusted"
