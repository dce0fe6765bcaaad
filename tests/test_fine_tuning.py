"""A pretrained sampler under a reward: what log Z is, what is reached, what is refused."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from diffsampler import FunctionTarget, InputError, Sampler, Target, assess, fine_tune, fine_tuned, fit
from diffsampler.baseline import GaussianComponents, reference
from diffsampler.behaviours import OnPolicy, WeightedPaths
from diffsampler.coordinates import AffineCoordinates, SearchedCoordinates
from diffsampler.families import Tempered
from diffsampler.fine_tuning import mean_reward, product_sampler
from diffsampler.losses import (
    AdjointMatching,
    LogVariance,
    Matching,
    MaximumLikelihood,
    PathwiseReverseKL,
    ScoreFunctionReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
    TrustRegionLogVariance,
)
from diffsampler.models import ModelTarget
from diffsampler.networks import FollmerDrift, FourierFlow, FourierMLP, MixtureControl
from diffsampler.processes import AnnealedLangevin, PinnedBrownian, Underdamped, VariancePreserving
from diffsampler.processes.grids import JitteredGrid
from targets import Gaussian

Z_BOUND = 4.5  # a false alarm of 7e-6
QUIETLY = {"enable_progress_bar": False, "accelerator": "cpu"}
SLOPE = torch.tensor([1.0, -0.5]).double()
# of a count of 4 by a Gamma(3, 2) rate: a negative binomial
GAMMA_POISSON = math.lgamma(7) - math.lgamma(3) - math.lgamma(5) + 3 * math.log(2 / 3) + 4 * math.log(1 / 3)
LOC, SCALE = torch.tensor([3.0, -2.0]).double(), torch.tensor([[0.5, 0.0], [1.0, 2.0]]).double()


def log_reward(x: torch.Tensor) -> torch.Tensor:
    return x @ SLOPE.to(x)


REWARD = FunctionTarget(log_reward, dim=2)
UNEVEN = Gaussian(mean=[0.4, 0.0])  # for draws of N(0, I), log-weights of variance 0.16


def pretrained(coordinates: AffineCoordinates | None = None, target: Target | None = None, **parts: object) -> Sampler:
    """Draws N(0, I) exactly: a process that keeps it, and a control that is zero; or what coordinates make of it."""
    process = partial(VariancePreserving, sigma=1.0)
    parts = {"process": process, "control": FourierMLP, "flow": None, "grid": 12, **parts}
    return Sampler(target or Gaussian(mean=[0.0, 0.0]), coordinates=coordinates, **parts)


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
    reference = mean_reward(pretrained(coordinates), reward, 20_000, seed=1, weighted=False).estimate
    assert reference.log_z == pytest.approx(estimate.log_z, abs=1e-6)


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


@pytest.mark.parametrize(
    "loss", [TrajectoryBalance, pytest.param(partial(SubTrajectoryBalance, 1.0), marks=pytest.mark.slow)]
)
def test_balance_losses_train_it(loss: object) -> None:
    tuned = fine_tuned(pretrained(), REWARD, flow=FourierFlow)
    history = fit(tuned, 60, loss=loss(), behaviour=OnPolicy(), lr=5e-3, ema_decay=0.0, **QUIETLY)
    assert history[-1]["ess"] > 0.5  # 0.29 before


def test_path_wise_gradients_are_those_of_whole_paths() -> None:
    """Off the optimum, and of a reward in coordinates: path-wise and score-function gradients have the same mean."""
    prior = FunctionTarget(lambda x: -x.sum(-1), dim=1, support=(0.0, math.inf))
    tuned = fine_tuned(pretrained(target=prior), FunctionTarget(lambda x: -x.sum(-1), dim=1))
    bias = list(tuned.policy.control.parameters())[-1]
    with torch.no_grad():
        bias.add_(0.3)
    means, errors = [], []
    for loss in (PathwiseReverseKL(), ScoreFunctionReverseKL()):
        found = []
        for seed in range(49):
            generator = torch.Generator().manual_seed(seed)
            value = loss.step(tuned.dynamics, OnPolicy(), 64, generator, 0.0)
            found.append(torch.autograd.grad(value, bias)[0])
        found = torch.stack(found)
        means.append(found.mean(0))
        errors.append(found.std(0) / 7)
    assert (means[0].abs() > 20 * errors[0]).any()
    assert ((means[0] - means[1]).abs() < Z_BOUND * (errors[0].square() + errors[1].square()).sqrt()).all()


def test_what_is_right_for_densities_alone_is_refused() -> None:
    tuned = fine_tuned(pretrained(), REWARD)
    with pytest.raises(InputError, match=r"AdjointMatching is of a density.*product_sampler"):
        fit(tuned, 1, loss=AdjointMatching(), behaviour=OnPolicy(), **QUIETLY)
    with pytest.raises(InputError, match="method='ode' weighs by a density"):
        tuned.estimate_log_z(100, method="ode")


def test_a_reward_has_no_score_to_match() -> None:
    tuned = [fine_tuned(pretrained(), REWARD) for _ in range(2)]
    for sampler, use_score in zip(tuned, (True, False), strict=True):
        fit(sampler, 2, loss=Matching(64, use_score), behaviour=WeightedPaths(64), **QUIETLY)
    assert torch.equal(*(sampler.sample(9, seed=0) for sampler in tuned))


def test_a_mean_reward_is_that_of_the_density_and_that_of_draws_differs() -> None:
    sampler = pretrained(target=UNEVEN)
    gentle, num = FunctionTarget(lambda x: 0.5 * log_reward(x), dim=2), 40_000
    with pytest.warns(UserWarning, match=r"another mean reward than its density, -0\.(19|2)\d* nats"):
        reference = mean_reward(sampler, gentle, num, seed=1)
    as_drawn = mean_reward(sampler, gentle, num, seed=1, weighted=False)
    # The mean of exp(a x) over N(m, I) is exp(a m + a a / 2).
    assert abs(as_drawn.estimate.log_z - 0.15625) < Z_BOUND * math.sqrt(math.expm1(0.3125) / num)
    # w ~ exp((0.4, 0) x) and w r ~ exp((0.9, -0.25) x), each over its mean: of their difference, the variance.
    error = math.sqrt((math.exp(0.8725) + math.exp(0.16) - 2 * math.exp(0.36)) / num)
    assert abs(reference.estimate.log_z - 0.35625) < Z_BOUND * error
    # e^{4 x 0.87} / n is the relative variance of a second moment: half-widths are known to 1.4 %.
    half = 0.5 * (reference.estimate.high - reference.estimate.low)
    assert half == pytest.approx(1.96 * error, rel=0.08)
    # Draws of N((0.9, -0.25), I): the error of weights, and of choosing among them.
    assert abs(float(reference.x[:, 0].mean()) - 0.9) < Z_BOUND * math.sqrt(2 * math.exp(0.8725) / num)
    verdict = assess(fine_tuned(sampler, gentle), num, reference=reference).verdict
    assert verdict.grade == "not to be trusted" and "product_sampler(tuned)" in verdict.next_steps[0]


@pytest.mark.slow
def test_a_product_is_weighed_by_both_densities() -> None:
    tuned = fine_tune(pretrained(target=UNEVEN), REWARD, max_steps=80, lr=5e-3, ema_decay=0.0, **QUIETLY)
    sampler = product_sampler(tuned)
    before = tuned.sample(3, seed=0)
    assert torch.equal(sampler.sample(3, seed=0), before)
    estimate = sampler.estimate_log_z(20_000, seed=1)
    assert abs(estimate.log_z - 1.025) < Z_BOUND * math.sqrt((1 / estimate.ess - 1) / 20_000)
    assert abs(tuned.estimate_log_z(20_000, seed=1).log_z - 0.625) < 0.05
    fit(sampler, 40, lr=5e-3, ema_decay=0.0, **QUIETLY)
    assert sampler.estimate_log_z(5000, seed=1).ess > max(0.9, estimate.ess)
    assert torch.equal(tuned.sample(3, seed=0), before)
    found = assess(sampler, 5000, reference=reference(sampler.target, 500))
    assert found.verdict.grade == "trustworthy"


def test_a_product_of_a_posterior_keeps_its_names_and_its_support() -> None:
    """A Gamma(3, 2) rate, and then a count of 4: evidence and posterior are known."""
    prior = ModelTarget(prior={"rate": torch.distributions.Gamma(3.0, 2.0)})
    sampler = pretrained(target=prior)

    def log_count(x: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Poisson(prior.constrain(x)["rate"]).log_prob(torch.tensor(4.0).double())

    tuned = fine_tuned(sampler, FunctionTarget(log_count, dim=1))
    assert tuned.posterior(100).values.keys() == {"rate"}
    product = product_sampler(tuned)
    posterior = product.posterior(1000, num_samples=20_000)
    assert posterior.estimate.low < GAMMA_POISSON < posterior.estimate.high
    rate = posterior.expectation("rate")
    assert abs(float(rate.value) - 7 / 3) < Z_BOUND * float(rate.standard_error)


def test_a_product_within_a_support_is_fine_tuned_again() -> None:
    """The density x^2 exp(-2 x) on (0, inf), times x, times x again: of each, a Gamma function is the integral."""
    prior = FunctionTarget(
        lambda x: (2 * x.log() - 2 * x).sum(-1), dim=1, support=torch.distributions.constraints.positive
    )
    once = FunctionTarget(lambda x: x.log().sum(-1), dim=1)
    product = product_sampler(fine_tuned(pretrained(target=prior), once))
    again = product_sampler(fine_tuned(product, once))
    for sampler, log_z in ((product, math.log(6 / 16)), (again, math.log(24 / 32))):
        estimate = sampler.estimate_log_z(20_000, seed=1)
        assert abs(estimate.log_z - log_z) < Z_BOUND * math.sqrt((1 / estimate.ess - 1) / 20_000)
        assert (sampler.sample(100, seed=0) > 0).all()
        assert sampler.log_prob(torch.tensor([[-1.0]]), seed=0) == -math.inf


def test_in_double_precision_and_on_another_device_it_goes_on_as_the_pretrained_one() -> None:
    sampler = pretrained().double()
    tuned = fine_tuned(sampler, REWARD)
    product = product_sampler(tuned)
    assert tuned.dtype == product.dtype == torch.float64
    for found in (tuned, product):
        assert torch.equal(found.sample(4, seed=0), sampler.sample(4, seed=0))
    fit(tuned, 2, **QUIETLY)
    # As on a GPU: both densities go along.
    assert product.to("meta").target.log_prob(torch.zeros(3, 2, device="meta")).shape == (3,)


def test_products_that_there_are_none_of() -> None:
    tuned = fine_tuned(pretrained(), REWARD)
    with pytest.raises(InputError, match="fine_tune or fine_tuned"):
        product_sampler(pretrained())
    with pytest.raises(InputError, match="fine_tune or fine_tuned"):
        product_sampler(product_sampler(tuned))
    with pytest.raises(InputError, match="sum of both log-rewards"):
        product_sampler(fine_tuned(tuned, REWARD))


def test_the_score_of_a_product_is_that_of_both_densities() -> None:
    target = product_sampler(fine_tuned(pretrained(target=UNEVEN), REWARD)).target
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(target.score(x), SLOPE - (x - UNEVEN.mean))  # of exp(a x) N(x; m, I)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda x: x.sum(), r"one value per point, shape \(9,\) for x of shape \(9, 2\), got \(\)"),
        (lambda x: x.sum(-1, keepdim=True), r"got \(9, 1\)"),
        (lambda x: 1.0, "must return a tensor, got float"),
        (lambda x: x.sum(-1).long(), r"floating-point values, got dtype torch\.int64"),
        (lambda x: x.sum(-1) + 1j, r"floating-point values, got dtype torch\.complex"),
        (lambda x: x.sum(-1) * math.nan, "9 have a log_prob that is NaN"),
    ],
)
def test_a_reward_that_is_none_is_refused_wherever_it_is_asked_first(
    values: Callable[[torch.Tensor], object], said: str
) -> None:
    reward = FunctionTarget(values, dim=2)
    tuned = fine_tuned(pretrained(), reward)
    for ask in (
        tuned.estimate_log_z,
        product_sampler(tuned).estimate_log_z,
        partial(mean_reward, pretrained(), reward),
    ):
        with pytest.raises(InputError, match=said):
            ask(9, seed=0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda x: x.sum(-1) * math.nan, r"^FunctionTarget\.log_prob is NaN at all 256 points"),
        (lambda x: x.sum(-1) @ torch.ones(3), r"failed, in FunctionTarget\.log_prob or a part of yours"),
    ],
)
def test_training_calls_a_reward_by_its_name(values: Callable[[torch.Tensor], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit(fine_tuned(pretrained(), FunctionTarget(values, dim=2)), 1, **QUIETLY)


def test_a_score_of_a_reward_that_is_spread_over_points_is_refused() -> None:
    class Flat(Target):
        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(-1)

        def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.sum(-1), torch.ones(2)

    sampler = product_sampler(fine_tuned(pretrained(), Flat(2)))
    with pytest.raises(InputError, match=r"Flat\.score must return the shape of x, \(5, 2\), got \(2,\)"):
        sampler.target.score(torch.zeros(5, 2))


def test_a_control_that_knows_a_mixture_leads_to_the_rewarded_one_at_once() -> None:
    wells = FunctionTarget(lambda x: -0.5 * (x.abs() - 4).square().sum(-1), dim=1)
    coordinates = SearchedCoordinates(wells, num_points=1000)
    control = partial(MixtureControl, network=FourierMLP, mixture=coordinates.get_mixture, step=0.1)
    sampler = Sampler(wells, VariancePreserving, control, None, 10, coordinates)
    sampler.search(seed=0, max_evaluations=1)
    reward = FunctionTarget(lambda x: 0.5 * x.sum(-1), dim=1)  # of one well it leaves next to nothing
    tuned = fine_tune(sampler, reward, 1, **QUIETLY)
    assert tuned.estimate_log_z(2000, seed=1).ess > 0.6  # 0.83 to 0.88 over seeds, 0.39 to 0.42 as it was
    # What is in closed form is learned on gently.
    assert tuned.recipe.training().lr < fine_tuned(pretrained(), REWARD).recipe.training().lr


def test_another_target_is_another_reward() -> None:
    """One that is a density elsewhere included: its log Z says nothing of this one."""
    tuned = fine_tuned(pretrained(), REWARD)
    tuned.move_to(Gaussian(mean=[1.0, 0.0]))
    truth = -math.log(4 * math.pi) - 0.25  # N(0; (1, 0), 2 I)
    estimate = tuned.estimate_log_z(20_000, seed=0)
    assert abs(estimate.log_z - truth) < Z_BOUND * math.sqrt((1 / estimate.ess - 1) / 20_000)
    assert assess(tuned, 1000).true_log_z is None
    assert abs(product_sampler(tuned).estimate_log_z(20_000, seed=0).log_z - truth) < 0.1
    with pytest.raises(InputError, match="support"):
        tuned.move_to(FunctionTarget(log_reward, dim=2, support=(0, 1)))


def test_a_product_moves_to_another_support_and_a_reward_stays_within_its_own() -> None:
    def beyond(low: float) -> Target:
        return FunctionTarget(lambda x: -(x - low).sum(-1), dim=1, support=(low, math.inf))

    tuned = fine_tuned(pretrained(target=beyond(0.0)), FunctionTarget(lambda x: -x.sum(-1), dim=1))
    product = product_sampler(tuned)
    product.move_to(beyond(7.0))
    assert product.sample(100, seed=0).min() > 7.0
    tuned.move_to(FunctionTarget(lambda x: -2 * x.sum(-1), dim=1))
    assert 0.0 < tuned.sample(100, seed=0).min() < 1.0


def test_a_verdict_without_reference_says_which_one_to_make() -> None:
    found = assess(fine_tuned(pretrained(), REWARD), 1000)
    assert any("mean_reward(pretrained, reward)" in step for step in found.verdict.next_steps)


def test_it_is_loaded_into_one_made_alike(tmp_path: Path) -> None:
    sampler = pretrained()
    tuned = fine_tune(sampler, REWARD, max_steps=3, **QUIETLY)
    tuned.save(tmp_path / "tuned.ckpt")
    again = fine_tuned(sampler, REWARD)
    again.load_checkpoint(tmp_path / "tuned.ckpt")
    assert torch.equal(again.sample(4, seed=0), tuned.sample(4, seed=0))
    again.policy.control.load_state_dict(sampler.policy.control.state_dict())
    assert not torch.equal(again.sample(4, seed=0), tuned.sample(4, seed=0))


def test_a_pretrained_sampler_of_networks_as_they_began_is_told() -> None:
    sampler = Sampler(Gaussian(mean=[0.0, 0.0]), PinnedBrownian, FourierMLP, None, 4)
    with pytest.warns(UserWarning, match="has made no step of training.*fit it first"):
        fine_tuned(sampler, REWARD)
    fit(sampler, 1, loss=LogVariance(), behaviour=OnPolicy(), num_eval_samples=20, enable_progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine_tuned(sampler, REWARD)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="sampler must be a Sampler"):
        fine_tuned(REWARD, REWARD)
    with pytest.raises(InputError, match="reward must be a Target"):
        fine_tuned(pretrained(), log_reward)
    with pytest.raises(InputError, match="reward must have the dimension of the density, 2, got 3"):
        fine_tuned(pretrained(), FunctionTarget(log_reward, dim=3))
    with pytest.raises(InputError, match="support"):
        fine_tuned(pretrained(), FunctionTarget(log_reward, dim=2, support=(0, 1)))
    with pytest.raises(InputError, match="only the control may, such as LangevinControl"):
        fine_tuned(pretrained(process=AnnealedLangevin), REWARD)
    with pytest.raises(InputError, match="FollmerDrift asks the density by itself"):
        fine_tuned(pretrained(process=PinnedBrownian, control=partial(FollmerDrift, num_draws=2)), REWARD)
    with pytest.raises(InputError, match="momenta"):
        fine_tuned(pretrained(process=Underdamped, backward_control=FourierMLP), REWARD)
    with pytest.raises(InputError, match="fit it first"):
        fine_tuned(Sampler(Gaussian(mean=[0.0, 0.0])), REWARD)
    with pytest.raises(InputError, match="families"):
        fine_tuned(Sampler(Tempered(Gaussian(mean=[0.0, 0.0]))), REWARD)


@pytest.mark.parametrize("trust_region", [pytest.param(math.inf, marks=pytest.mark.slow), 0.1])
def test_weighted_paths_are_draws_of_the_target_as_far_as_the_trust_region_reaches(trust_region: float) -> None:
    tuned = fine_tuned(pretrained(), REWARD)
    generator, behaviour = torch.Generator().manual_seed(0), WeightedPaths(20_000, trust_region)
    # log w is normal with the variance 1.25: w^a is a^2 1.25 / 2 nats away, and its draws are those of N(a slope, I).
    exponent = min(1.0, math.sqrt(2 * trust_region / 1.25))
    # The mean of 5000 drawn from weights of an effective 0.29 of 20 000: variances of both add.
    standard_error = math.sqrt(1 / 5000 + 1 / (0.29 * 20_000))
    for num_asked in (20_000, 25_000, 30_000, 35_000, 40_000):  # a quarter is new each time, with its own weights
        x = behaviour.paths(tuned.dynamics, 20_000, generator, 0.0).x[-1, :5000]
        assert tuned.num_target_evaluations == num_asked
    assert ((x.mean(0) - exponent * SLOPE).abs() < Z_BOUND * standard_error).all()


@pytest.mark.parametrize("of_loss", [False, True])
def test_paths_of_an_earlier_training_are_forgotten(of_loss: bool) -> None:
    def method() -> dict[str, object]:
        if of_loss:
            return {"loss": TrustRegionLogVariance(64), "behaviour": OnPolicy(), "batch_size": 32}
        return {"loss": MaximumLikelihood(), "behaviour": WeightedPaths(64)}

    again = method()
    fit(pretrained(), 2, **again, **QUIETLY)
    others = [pretrained(target=Gaussian(mean=[9.0, 0.0, 0.0]), grid=7) for _ in range(2)]
    for sampler, given in zip(others, (again, method()), strict=True):
        fit(sampler, 2, **given, **QUIETLY)
    assert torch.equal(*(sampler.sample(9, seed=0) for sampler in others))


def test_weighted_paths_refuse_times_that_change_and_densities_that_are_zero() -> None:
    sampler = pretrained(grid=JitteredGrid(4))
    with pytest.raises(InputError, match="JitteredGrid"):
        fit(sampler, 1, loss=MaximumLikelihood(), behaviour=WeightedPaths(), **QUIETLY)
    nowhere = fine_tuned(pretrained(), FunctionTarget(lambda x: torch.full_like(x[..., 0], -torch.inf), dim=2))
    with pytest.raises(InputError, match="zero at all 8 paths"):
        WeightedPaths(8).paths(nowhere.dynamics, 4, torch.Generator(), 0.0)


def test_weighted_paths_end_where_the_density_is_a_number() -> None:
    def in_parts(x: torch.Tensor) -> torch.Tensor:
        first = x[..., 0]
        worst = torch.where(first > 0.5, math.nan, torch.where(first < -0.5, math.inf, -math.inf))
        return torch.where((first.abs() < 0.5) & (x[..., 1] > 0), 0.0, worst)

    tuned = fine_tuned(pretrained(), FunctionTarget(in_parts, dim=2))
    ends = WeightedPaths(200).paths(tuned.dynamics, 100, torch.Generator().manual_seed(0), 0.0).x[-1]
    assert (ends[:, 0].abs() < 0.5).all() and (ends[:, 1] > 0).all()


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
