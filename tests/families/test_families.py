"""Families of densities: one sampler for all contexts, weights that are exact for each."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Z_BOUND
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from diffsampler import FunctionTarget, InputError, Sampler, Target, assess, fit
from diffsampler.baseline.conditional_map import ConditionalMap, fit_conditional_map
from diffsampler.behaviours import OnPolicy
from diffsampler.curves import thermodynamics
from diffsampler.families import Amortised, Coupled, Family, Scalarised, Tempered
from diffsampler.losses import LogVariance, SubTrajectoryBalance, TrajectoryBalance
from diffsampler.networks import FourierMLP
from diffsampler.paths import Trajectory, evaluate, rollout
from diffsampler.processes import VariancePreserving
from targets import Gaussian, Phi4Hopping


class Shifted(Family):
    """3 N(x; c / 2, (0.4 + 0.2 c_2) I)."""

    context_names = ("place", "width")

    def __init__(self) -> None:
        super().__init__(2, 2)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        variance = 0.4 + 0.2 * context[..., 1]
        squares = (x - 0.5 * context).square().sum(-1) / variance
        return -0.5 * squares - (2 * math.pi * variance).log() + math.log(3.0)

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 2, generator=generator) + torch.tensor([0.0, 0.5])

    def log_z_at(self, context: Tensor) -> float:
        return math.log(3.0)


def linear_model(dim: int = 2, noise: float = 0.5) -> Amortised:
    """x ~ N(0, I), data ~ N(x, noise^2)."""
    return Amortised(
        Independent(Normal(torch.zeros(dim), 1.0), 1),
        lambda x: x + noise * torch.randn_like(x),
        lambda x, data: Independent(Normal(x, noise), 1).log_prob(data),
    )


def log_evidence(data: Tensor, noise: float = 0.5) -> float:
    return float(Normal(0.0, math.sqrt(1 + noise**2)).log_prob(data.double()).sum())


@pytest.fixture(scope="module")
def fitted() -> Sampler:
    torch.set_default_dtype(torch.float64)
    sampler = Sampler(linear_model())
    fit(sampler, max_steps=60, seed=0, enable_progress_bar=False)
    return sampler


@pytest.mark.parametrize("beta", [0.3, 1.0, 1.7])
def test_a_tempered_target_is_a_power_of_it(beta: float) -> None:
    target = FunctionTarget(lambda x: -x.pow(4).sum(-1) + x[..., 0], 3)
    member, x = Tempered(target, 0.2, 2.0).given(math.log(beta)), torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(member.log_prob(x), beta * target.log_prob(x))
    torch.testing.assert_close(member.score(x), beta * target.score(x))


def test_where_a_tempered_density_is_zero_it_stays_zero() -> None:
    target = FunctionTarget(lambda x: torch.where(x[..., 0] > 0, -x[..., 0], -math.inf), 1)
    assert Tempered(target).given(-3.0).log_prob(torch.tensor([[-1.0]])).isneginf().all()


def test_a_coupled_target_is_that_of_its_arguments() -> None:
    family = Coupled(Phi4Hopping, {"kappa": (0.1, 0.3), "coupling": (0.01, 0.05)}, shape=(2, 3))
    x = torch.randn(6, 6, dtype=torch.float64)
    pairs = torch.tensor([[0.1, 0.02], [0.2, 0.03], [0.1, 0.02], [0.3, 0.01], [0.2, 0.03], [0.2, 0.04]]).double()
    log_prob, score = family.log_prob_and_score(x, pairs)
    for k, (kappa, coupling) in enumerate(pairs.tolist()):
        target = Phi4Hopping((2, 3), kappa, coupling)
        torch.testing.assert_close(log_prob[k], target.log_prob(x[k]))
        torch.testing.assert_close(score[k], target.score(x[k]))
    torch.testing.assert_close(family.log_prob(x, pairs), log_prob)


@pytest.mark.parametrize("kind", ["sum", "log-linear"])
def test_preferences_have_closed_forms(kind: str) -> None:
    """Gaussian rewards: a sum has Z = sum w_k Z_k, a product is a Gaussian of the mean precision."""
    mean, variance, weight = torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 2.0]), torch.tensor([0.3, 0.7])
    rewards = [Gaussian(mean=[float(m)], covariance=float(v)) for m, v in zip(mean, variance, strict=True)]
    family = Scalarised(rewards, kind)
    x = torch.linspace(-30, 30, 6001, dtype=torch.float64).unsqueeze(-1)
    log_z = float(family.given(weight).log_prob(x).logsumexp(0)) + math.log(0.01)
    log_c = torch.tensor([reward.log_z for reward in rewards]) - 0.5 * (2 * math.pi * variance).log()
    precision, pull = (weight / variance).sum(), (weight * mean / variance).sum()
    product = (weight * (log_c - 0.5 * mean.square() / variance)).sum() + 0.5 * pull**2 / precision
    product = product + 0.5 * (2 * math.pi / precision).log()
    total = (weight.log() + torch.tensor([reward.log_z for reward in rewards])).logsumexp(0)
    assert log_z == pytest.approx(float(total if kind == "sum" else product), abs=1e-5)


@pytest.mark.parametrize("kind", ["sum", "log-linear"])
def test_a_temperature_divides_the_whole(kind: str) -> None:
    rewards = [Gaussian(mean=[m], covariance=1.0) for m in (-1.0, 2.0)]
    x, weight = torch.randn(5, 1, dtype=torch.float64), [0.3, 0.7]
    sharp, plain = (Scalarised(rewards, kind, temperature).given(weight).log_prob(x) for temperature in (0.2, 1.0))
    torch.testing.assert_close(sharp, 5 * plain)


def test_preferences_are_on_the_simplex() -> None:
    family = Scalarised([Gaussian(mean=[0.0], covariance=1.0)] * 3, concentration=0.3)
    contexts = family.sample_contexts(1000, torch.Generator().manual_seed(0))
    assert contexts.shape == (1000, 3) and (contexts >= 0).all()
    torch.testing.assert_close(contexts.sum(-1), torch.ones(1000).double())


def bent_map() -> tuple[ConditionalMap, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    context, z = (torch.randn(2000, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    first = context[:, 0] + 0.5 * context[:, 1].square() + (0.4 * context[:, 0]).exp() * z[:, 0]
    x = torch.stack([first, 0.3 * first.square() - context[:, 1] + 0.2 * z[:, 1]], -1)
    return fit_conditional_map(x, context), x, context


def test_a_map_that_depends_on_the_context_undoes_itself_and_knows_its_determinant() -> None:
    found, x, context = bent_map()
    z, log_det = found.inverse(x[:50], context[:50])
    again, same = found.forward(z, context[:50])
    torch.testing.assert_close(again, x[:50])
    torch.testing.assert_close(same, log_det)
    for k in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda one, k=k: found.forward(one[None], context[k, None])[0][0], z[k]
        )
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[k])


def test_such_a_map_makes_draws_normal_whatever_the_context() -> None:
    found, x, context = bent_map()
    z, _ = found.inverse(x, context)
    # 2000 draws, means and squares of two coordinates and their products with contexts: 10 figures, 1e-4 together.
    figures = torch.cat([z, z.square() - 1, z * context, z[:, :1] * z[:, 1:], z.flip(-1) * context, z[:, :1] ** 3], -1)
    score = figures.mean(0) / (figures.std(0) / math.sqrt(len(z)))
    assert score.abs().max() < Z_BOUND


def unsearched(**parts: object) -> Sampler:
    return Sampler(Shifted(), process=VariancePreserving, control=FourierMLP, grid=8, **parts)


@pytest.mark.parametrize("context", [[0.1, 0.6], [0.9, 1.4]])
def test_weights_of_one_member_are_exact_before_any_training(context: list[float]) -> None:
    member = unsearched().given(context)
    x, log_weight = member.sample(40_000, seed=1, return_log_weights=True)
    weight = (log_weight - math.log(3.0)).exp()
    assert abs(float(weight.mean()) - 1) < Z_BOUND * float(weight.std()) / math.sqrt(len(weight))
    # E[w x] / 3 is the mean of the member: two coordinates.
    moved = weight.unsqueeze(-1) * (x.double() - 0.5 * torch.tensor(context))
    assert ((moved.mean(0)).abs() < Z_BOUND * moved.std(0) / math.sqrt(len(x))).all()


def test_contexts_stay_as_they_are_on_every_path() -> None:
    sampler = unsearched()
    path = rollout(sampler.dynamics, 300, torch.Generator().manual_seed(0))
    assert torch.equal(path.x[..., 2:], path.x[:1, :, 2:].expand(9, -1, -1))
    contexts, counts = path.x[0, :, 2:].unique(dim=0, return_counts=True)
    assert len(contexts) == 2 and counts.min() >= 128  # compared within groups


def test_log_variance_is_that_within_contexts() -> None:
    sampler = unsearched()
    trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 256, torch.Generator().manual_seed(0)))
    log_weight, context = trajectory.log_weight, trajectory.path.x[0, :, 2:]
    variances = [log_weight[(context == one).all(-1)].var(correction=0) for one in context.unique(dim=0)]
    torch.testing.assert_close(LogVariance()(trajectory), torch.stack(variances).mean())


def test_log_variance_does_not_mind_a_z_of_each_context() -> None:
    group = torch.tensor([0, 1, 0, 1, 2])
    zeros = torch.zeros(3, 5, dtype=torch.float64)
    log_z = torch.tensor([1.0, -4.0, 9.0], dtype=torch.float64)[group]
    trajectory = Trajectory(zeros, zeros, zeros[0], log_z, torch.zeros(()).double(), context=group.unsqueeze(-1))
    assert float(LogVariance()(trajectory)) < 1e-20


@pytest.mark.parametrize("loss", [TrajectoryBalance, SubTrajectoryBalance])
def test_balance_losses_learn_a_log_z_of_each_context(loss: type) -> None:
    sampler = unsearched()
    before = sampler.policy.log_z_at(torch.rand(4, 4))
    fit(sampler, 3, loss=loss(), behaviour=OnPolicy(), batch_size=64, enable_progress_bar=False)
    after = sampler.policy.log_z_at(torch.rand(4, 4))
    assert before.shape == (4,) and len(after.unique()) == 4


def test_a_trained_family_knows_each_evidence(fitted: Sampler) -> None:
    data = fitted.family.sample_jointly(6, torch.Generator().manual_seed(7))[1]
    errors, widths = [], []
    for k, one in enumerate(data):
        estimate = fitted.given(one).estimate_log_z(1000, seed=k)
        errors.append(estimate.log_z - log_evidence(one))
        widths.append((estimate.high - estimate.low) / 3.92)
        assert estimate.ess > 0.9
    z = torch.tensor(errors) / torch.tensor(widths)
    assert z.abs().max() < Z_BOUND and max(widths) < 0.015


def test_one_sampler_gives_another_posterior_for_other_data(fitted: Sampler) -> None:
    for data in ([2.0, -1.0], [-1.0, 0.3]):
        x, log_weight = fitted.given(data).sample(4000, seed=1, return_log_weights=True)
        weight = log_weight.softmax(0).unsqueeze(-1)
        mean = (weight * x).sum(0)
        # The posterior is N(0.8 data, 0.2); 4000 draws of an effective share above 0.9.
        error = Z_BOUND * math.sqrt(0.2 / (0.9 * 4000))
        assert (mean - 0.8 * torch.tensor(data)).abs().max() < error


def test_the_curve_of_log_z_says_what_is_trusted(fitted: Sampler, tmp_path: Path) -> None:
    curve = fitted.log_z_curve([[0.0, 0.0], [1.0, -1.0]], num_samples=1000)
    assert len(curve.estimates) == 2 and curve.log_z.shape == (2,)
    assert str(curve).count("\n") == 2 and "doubtful" in str(curve)  # nothing independent was asked
    assert [point["context"] for point in curve.to_dict()["points"]] == [[0.0, 0.0], [1.0, -1.0]]
    curve.plot().savefig(tmp_path / "curve.png")


def test_members_share_what_was_learned_and_go_on_counting(fitted: Sampler) -> None:
    member = fitted.given([0.0, 0.0])
    assert member.policy.control is fitted.policy.control
    before = fitted.num_target_evaluations
    estimate = member.estimate_log_z(500, seed=0)
    # And a few of them again, in full precision.
    assert before + 500 <= estimate.num_target_evaluations < before + 550 and fitted.num_target_evaluations == before


def test_a_family_is_kept_in_a_file(fitted: Sampler, tmp_path: Path) -> None:
    fitted.save(tmp_path / "family.ckpt")
    loaded = Sampler.load(tmp_path / "family.ckpt", linear_model())
    for context in ([0.0, 0.0], [1.0, -2.0]):
        assert torch.equal(loaded.given(context).sample(20, seed=3), fitted.given(context).sample(20, seed=3))


def test_a_member_has_the_density_of_its_probability_flow(fitted: Sampler) -> None:
    data, x = torch.tensor([0.4, -0.2]), torch.tensor([[0.0, 0.0], [0.5, -0.5]])
    exact = MultivariateNormal(0.8 * data, 0.2 * torch.eye(2)).log_prob(x).double()
    assert (fitted.given(data).log_prob(x) - exact).abs().max() < 0.2


def test_a_family_by_itself_has_no_log_z(fitted: Sampler) -> None:
    asked = (lambda: fitted.sample(10), fitted.estimate_log_z, lambda: assess(fitted), lambda: fitted.rollback(x))
    x = torch.zeros(3, 2)
    for ask in asked:
        with pytest.raises(InputError, match=r"family of densities: say which one, by sampler.given\(context\)"):
            ask()


@pytest.mark.parametrize(
    ("context", "message"),
    [(1.0, "2 finite numbers, got"), ([1.0, math.nan], "2 finite numbers"), ("cold", "must be 2 numbers, got 'cold'")],
)
def test_a_context_that_is_none_is_refused(fitted: Sampler, context: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted.given(context)


def test_a_member_is_neither_trained_nor_moved_by_itself(fitted: Sampler) -> None:
    with pytest.raises(InputError, match="train the sampler that gave it"):
        fit(fitted.given([0.0, 0.0]), 1)
    with pytest.raises(InputError, match="make another Sampler for another family"):
        fit(fitted, 1, target=linear_model(noise=0.3))


def test_a_search_names_the_context_that_it_fails_at() -> None:
    class Broken(Shifted):
        def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
            return super().log_prob(x, context) + torch.where(context[..., 0] > 0.3, torch.nan, 0.0)

    with pytest.raises(InputError, match=r"At the context \[0\..*log_prob is NaN"):
        Sampler(Broken()).search(seed=0)


@pytest.mark.parametrize("contexts", [0.3, torch.tensor(0.3), None, [], torch.zeros(0, 2)], ids=str)
def test_a_curve_needs_contexts(fitted: Sampler, contexts: object) -> None:
    with pytest.raises(InputError, match="contexts must be a list of contexts, one at least"):
        fitted.log_z_curve(contexts)


def test_arrays_of_contexts_are_rows_of_them() -> None:
    rows = np.array([[0.2, 1.0], [0.4, 0.7]])
    curve, same = (unsearched().log_z_curve(some, num_samples=100) for some in (rows, rows.tolist()))
    assert torch.equal(curve.contexts, torch.from_numpy(rows)) and torch.equal(curve.log_z, same.log_z)


def test_contexts_of_another_shape_are_refused() -> None:
    class Wrong(Shifted):
        def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
            return torch.rand(n, generator=generator)

    with pytest.raises(InputError, match=r"Wrong.sample_contexts must return finite contexts with shape \(n, 2\)"):
        Sampler(Wrong())


def test_what_cannot_be_a_family_is_refused() -> None:
    with pytest.raises(InputError, match=r"ranges must give \(low, high\) for each argument"):
        Coupled(Phi4Hopping, {"kappa": 0.2})
    with pytest.raises(InputError, match="low must be below high"):
        Tempered(Gaussian(mean=[0.0], covariance=1.0), 2.0, 1.0)
    with pytest.raises(InputError, match="same dimension"):
        Scalarised([Gaussian(mean=[0.0], covariance=1.0), Gaussian(mean=[0.0, 0.0], covariance=1.0)])
    with pytest.raises(InputError, match="simulate must return a tensor"):
        Amortised(Independent(Normal(torch.zeros(2), 1.0), 1), lambda x: x.sum(), lambda x, data: x.sum(-1))
    with pytest.raises(InputError, match="targets must be a list of two at least"):
        Scalarised(Gaussian(mean=[0.0], covariance=1.0))
    with pytest.raises(InputError, match=r"Tempered is a family: give one of its members, family.given\(context\)"):
        Tempered(Tempered(Gaussian(mean=[0.0], covariance=1.0)))
    with pytest.raises(InputError, match="covariance must have positive variances"):
        Coupled(Gaussian, {"covariance": (0.5, 1.0)}, mean=[0.0]).given(-1.0)
    for names in ("place", ("place",)):
        with pytest.raises(InputError, match="context_names of Named must be a name for each of its 2 numbers"):
            Sampler(type("Named", (Shifted,), {"context_names": names})())
    with pytest.raises(InputError, match=r"Bare must call super\(\).__init__\(dim, context_dim\)"):
        Sampler(type("Bare", (Shifted,), {"__init__": lambda self: Target.__init__(self, 2)})())
    with pytest.raises(InputError, match="given is for samplers of a Family"):
        Sampler(Gaussian(mean=[0.0], covariance=1.0)).given(1.0)
    with pytest.raises(InputError, match="thermodynamics is for samplers of Tempered"):
        thermodynamics(Sampler(Shifted()), [1.0])


def test_log_z_of_a_member_is_asked_for_only_when_it_is_reported() -> None:
    """Transfer matrices take seconds."""
    asked = []

    class Slow(Shifted):
        def log_z_at(self, context: Tensor) -> Tensor:
            asked.append(context.tolist())
            return torch.tensor(math.log(3.0))

    sampler = Sampler(Slow(), process=VariancePreserving, control=FourierMLP, grid=8)
    member = sampler.given([0.5, 1.0])
    member.estimate_log_z(100, seed=0)
    assert not asked
    found = assess(member, 500)
    assert asked == [[0.5, 1.0]] and "true log Z           1.0986" in str(found)
    Slow.log_z_at = lambda self, context: math.nan
    with pytest.raises(InputError, match="log_z of Slow must be a finite number, or None where it is not known"):
        assess(sampler.given([0.5, 1.0]), 500)


def test_curves_of_different_seeds_have_different_noise() -> None:
    one, other = (unsearched().log_z_curve([[0.2, 1.0], [0.2, 1.0]], num_samples=200, seed=seed) for seed in (0, 1))
    assert len({float(log_z) for curve in (one, other) for log_z in curve.log_z}) == 4


def test_a_curve_of_data_is_trusted_beside_references() -> None:
    sampler = Sampler(linear_model())
    sampler.search(seed=0)  # the exact map of a linear model
    assert sampler.log_z_curve([[0.5, -1.0]], num_samples=1000).grades == ["doubtful"]
    curve = sampler.log_z_curve([[0.5, -1.0]], num_samples=1000, reference=True)
    assert curve.grades == ["trustworthy"], curve.assessments
    assert "agrees with the reference" in " ".join(curve.to_dict()["points"][0]["reasons"])


def test_simulations_without_a_generator_are_others_each_time() -> None:
    family, (first, second) = linear_model(), (torch.Generator().manual_seed(seed) for seed in (3, 3))
    assert not torch.equal(family.sample_jointly(3)[0], family.sample_jointly(3)[0])
    assert torch.equal(family.sample_jointly(3, first)[0], family.sample_jointly(3, second)[0])


def test_failed_simulations_are_left_out() -> None:
    """One of a thousand is NaN, where each of 20 000 draws would spoil the map that is fitted to them."""
    like = linear_model()

    def simulate(x: Tensor) -> Tensor:
        data = like.simulate(x)
        data[::1000] = math.nan
        return data

    with pytest.warns(UserWarning, match="simulate has returned NaN or infinity for some draws"):
        sampler = Sampler(Amortised(like.prior, simulate, like.log_likelihood))
        sampler.search(seed=0)
    data = torch.tensor([0.5, -1.0])
    estimate = sampler.given(data).estimate_log_z(1000, seed=0)
    assert abs(estimate.log_z - log_evidence(data)) < Z_BOUND * math.sqrt(estimate.variance)


@pytest.mark.slow
def test_one_training_gives_free_energy_energy_and_heat_capacity() -> None:
    """Four double wells; exact by quadrature of one, times four."""
    target = FunctionTarget(lambda x: -(x**4 - 3 * x**2 + 0.5 * x).sum(-1), 4)
    sampler = Sampler(Tempered(target, 0.1, 2.0))
    fit(sampler, max_steps=1000, seed=0, enable_progress_bar=False)
    betas = [0.1, 0.3, 0.5, 1.0, 1.5, 2.0]
    found = thermodynamics(sampler, betas, 20_000, seed=1)
    x = torch.linspace(-6, 6, 60_001, dtype=torch.float64)
    energy = x**4 - 3 * x**2 + 0.5 * x
    for k, beta in enumerate(betas):
        log_z = float((-beta * energy).logsumexp(0)) + math.log(float(x[1] - x[0]))
        weight = (-beta * energy).softmax(0)
        mean = float(weight @ energy)
        capacity = beta**2 * float(weight @ (energy - mean).square())
        estimate = found.curve.estimates[k]
        error = (estimate.high - estimate.low) / 3.92
        assert estimate.ess > 0.5 and found.curve.grades[k] == "trustworthy"
        # Eighteen figures, 1e-4 together.
        assert abs(estimate.log_z - 4 * log_z) < Z_BOUND * error
        assert abs(float(found.energy[k]) - 4 * mean) < Z_BOUND * float(found.energy_error[k])
        assert abs(float(found.heat_capacity[k]) - 4 * capacity) < Z_BOUND * float(found.heat_capacity_error[k])


def test_a_budget_too_small_for_the_searches_of_a_family_is_refused_first() -> None:
    sampler = Sampler(Shifted())
    with pytest.raises(InputError, match="max_target_evaluations must be at least 2,000,000 .* got 1,000,000"):
        fit(sampler, 10, max_target_evaluations=1_000_000, enable_progress_bar=False)
    assert sampler.num_target_evaluations == 0


def test_a_budget_that_ends_amid_the_searches_says_so_and_what_was_found_is_used() -> None:
    sampler = Sampler(Shifted())
    with pytest.warns(UserWarning, match=r"ended after 3 of 8 contexts.*half of max_target_evaluations.*left out, \["):
        sampler.search(seed=0, max_evaluations=1000)
    assert sampler.search_cost < 2_000_000
    member = sampler.given([0.5, 1.0])
    assert abs(member.reference.log_z - math.log(3.0)) < Z_BOUND * math.sqrt(member.reference.variance)
    assert member.reference.high - member.reference.low > 1.0  # so short, searches do not know, and say so
    # By the found coordinates alone: weights of a normal density in them.
    assert member.estimate_log_z(2000, seed=0).ess > 0.5


def test_where_nothing_is_searched_a_small_budget_is_enough() -> None:
    sampler = Sampler(linear_model())
    options = {"batch_size": 128, "num_eval_samples": 200, "enable_progress_bar": False}
    fit(sampler, 20, max_target_evaluations=8000, **options)
    assert 0 < sampler.num_target_evaluations <= 8000
