"""Estimates without learning: Gaussian components, tempered SMC and annealed importance sampling."""

import math

import pytest
import torch
from helpers import Z_BOUND, assert_mean, two_modes
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Target
from diffsampler.baseline import GaussianComponents, HamiltonianMove, RandomWalkMove, ais, reverse_ais, smc
from diffsampler.baseline.moves import AnnealedPath, Move, Rung
from diffsampler.counted import CountedTarget
from diffsampler.log_z.resampling import systematic
from targets import Gaussian

MOVES = [HamiltonianMove(4), RandomWalkMove()]


@pytest.fixture
def components() -> GaussianComponents:
    factor = torch.tensor([[[1.2, 0.0], [0.5, 0.8]], [[0.4, 0.0], [-0.3, 1.5]]])
    return GaussianComponents(torch.tensor([[0.5, -1.0], [-2.0, 1.0]]), factor, torch.tensor([1.0, 3.0]))


@pytest.fixture
def prior() -> GaussianComponents:
    return GaussianComponents(torch.zeros(1, 2), 1.8 * torch.eye(2)[None])


def test_components_match_torch(components: GaussianComponents, generator: torch.Generator) -> None:
    x = torch.randn(7, 2, generator=generator).requires_grad_()
    oracle = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.25, 0.75])),
        torch.distributions.MultivariateNormal(components.loc, scale_tril=components.factor),
    )
    log_prob, score = components.log_prob_and_score(x.detach())
    expected = oracle.log_prob(x)
    torch.testing.assert_close(log_prob, expected.detach())
    torch.testing.assert_close(score, torch.autograd.grad(expected.sum(), x)[0])
    # Far out, where every density underflows.
    log_prob, score = components.log_prob_and_score(torch.full((1, 2), 1e6))
    assert log_prob.isfinite().all() and score.isfinite().all()


def test_draws_of_components(components: GaussianComponents, generator: torch.Generator) -> None:
    # n = 20000: two means and two second moments within 4.5 standard errors, 3e-5.
    x = components.sample(20_000, generator)
    weight = torch.tensor([0.25, 0.75])
    mean = weight @ components.loc
    second = weight @ (components.factor.square().sum(-1) + components.loc.square())
    for d in range(2):
        assert_mean(x[:, d], float(mean[d]), f"mean {d}")
        assert_mean(x[:, d].square(), float(second[d]), f"second moment {d}")


def test_fitting_is_affine_and_survives_few_points(generator: torch.Generator) -> None:
    x = torch.randn(500, 3, generator=generator) * torch.tensor([1e-6, 1.0, 1e5]) + torch.tensor([50.0, 0.0, 3.0])
    fitted = GaussianComponents.fitted_to(x, widening=2.0)
    torch.testing.assert_close(fitted.loc[0], x.mean(0))
    torch.testing.assert_close(fitted.factor[0].square().sum(-1).sqrt(), 2 * x.std(0, correction=0), rtol=1e-6, atol=0)
    few = GaussianComponents.fitted_to(torch.randn(2, 5, generator=generator))
    assert few.factor.isfinite().all()
    assert GaussianComponents.fitted_to(torch.ones(3, 2)).factor.isfinite().all()
    with pytest.raises(InputError, match="must have shapes"):
        GaussianComponents(torch.zeros(2), torch.eye(2))
    with pytest.raises(InputError, match="must be finite"):
        GaussianComponents(torch.zeros(1, 2), torch.zeros(1, 2, 2))


def test_fitting_to_repeated_points_is_invertible(generator: torch.Generator) -> None:
    few = torch.randn(3, 10, generator=generator).repeat(100, 1) + 5.0
    assert GaussianComponents.fitted_to(few).factor.isfinite().all()


def test_a_ladder_must_reach_the_top(prior: GaussianComponents) -> None:
    ladder = smc(two_modes(), prior, 100, seed=0).ladder
    for broken in ([], ladder[:-1], ladder[::-1]):
        for run in (
            lambda rungs: ais(two_modes(), prior, rungs, 10),
            lambda rungs: smc(two_modes(), prior, 10, ladder=rungs),
        ):
            with pytest.raises(InputError, match="ladder must rise from above 0 to 1"):
                run(broken)


def test_a_zero_stays_zero_at_every_temperature(prior: GaussianComponents) -> None:
    half = FunctionTarget(lambda x: torch.where(x[..., 0] > 0, 0.0, -math.inf) - x.square().sum(-1), dim=2)
    particles = AnnealedPath(CountedTarget(half), prior, RandomWalkMove()).at(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    for beta in (0.3, 0.7, 1.0):
        log_prob, _ = particles.tempered(beta)
        assert log_prob[0] == -math.inf and log_prob[1].isfinite()


def test_mixing_and_widening(components: GaussianComponents, prior: GaussianComponents) -> None:
    x = torch.tensor([[0.3, 0.4]])
    mixed = components.mixed_with(prior, 0.2).log_prob_and_score(x)[0].exp()
    parts = [part.log_prob_and_score(x)[0].exp() for part in (components, prior)]
    torch.testing.assert_close(mixed, 0.8 * parts[0] + 0.2 * parts[1])
    torch.testing.assert_close(components.widened(2.0).factor, 2 * components.factor)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: type(move).__name__)
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_moves_leave_the_tempered_density_alone(
    move: Move, beta: float, components: GaussianComponents, generator: torch.Generator
) -> None:
    # A Gaussian prior^(1 - b) R^b is known: draws of it stay draws. n = 20000, eight figures beyond 4.5: 6e-5.
    target = Gaussian([1.0, -0.5], [[0.8, 0.3], [0.3, 1.5]])
    prior = GaussianComponents(torch.tensor([[-1.0, 0.5]]), torch.diag(torch.tensor([1.5, 0.7]))[None])
    precision = torch.linalg.inv(torch.tensor([[0.8, 0.3], [0.3, 1.5]]))
    start = torch.diag(torch.tensor([1.5, 0.7]) ** -2.0)
    covariance = torch.linalg.inv((1 - beta) * start + beta * precision)
    mean = covariance @ ((1 - beta) * start @ prior.loc[0] + beta * precision @ torch.tensor([1.0, -0.5]))
    factor = torch.linalg.cholesky(covariance)
    path = AnnealedPath(CountedTarget(target), prior, move)
    noise = torch.randn(20_000, 2, generator=generator)
    particles = path.at(mean + noise @ factor.T)
    before = particles.x
    rung = Rung(beta, components.factor[0], 0.7)
    for _ in range(3):
        particles, acceptance = move.apply(path, particles, rung, generator)
    assert 0.1 < acceptance < 0.99 and (particles.x != before).all(-1).float().mean() > 0.3
    z = torch.linalg.solve_triangular(factor, (particles.x - mean).T, upper=False).T
    for figures in (z, z.square() - 1):
        for d in range(2):
            assert_mean(figures[:, d], 0.0, f"{type(move).__name__} {d}")


@pytest.mark.slow
@pytest.mark.parametrize("move", MOVES, ids=lambda move: type(move).__name__)
def test_smc_along_a_fixed_ladder_is_unbiased(
    move: Move, prior: GaussianComponents, generator: torch.Generator
) -> None:
    target = two_modes()
    ladder = smc(target, prior, 200, move=move, seed=3).ladder
    assert len(ladder) >= 2
    runs = [smc(target, prior, 30, 1, move, ladder=ladder, generator=generator).estimate for _ in range(400)]
    # 400 independent estimates of Z = 1; |z| < 4.5, 7e-6.
    assert_mean(torch.tensor([run.log_z for run in runs]).exp(), 1.0, "E[Z]")


@pytest.mark.slow
def test_the_interval_is_as_wide_as_the_spread(prior: GaussianComponents) -> None:
    # 200 runs: the sample variance has a relative standard error of sqrt(2 / 199) = 0.1, so 4.5 of them are 0.45.
    runs = [smc(two_modes(), prior, 100, 1, seed=seed).estimate for seed in range(200)]
    log_z = torch.tensor([run.log_z for run in runs])
    claimed = torch.tensor([((run.high - run.low) / 3.92) ** 2 for run in runs if math.isfinite(run.high)])
    assert len(claimed) > 150
    assert 0.55 < claimed.mean() / log_z.var() < 1.9, (claimed.mean(), log_z.var())
    # Fields that mean the same as everywhere: (1 / ess - 1) / (n - 1) is the relative variance.
    run = runs[0]
    assert abs(math.sqrt((1 / run.ess - 1) / 99) * 2 * 1.96 - (run.high - run.low)) < 1e-3


def test_ais_brackets_log_z(prior: GaussianComponents, generator: torch.Generator) -> None:
    target = two_modes()
    ladder = smc(target, prior, 500, seed=3).ladder
    up = ais(target, prior, ladder, 20_000, generator=generator)
    down = reverse_ais(target, prior, ladder, target.sample(20_000, generator), generator=generator)
    # E[w] = Z = 1 and E[1 / w] = 1; |z| < 4.5, 7e-6 each.
    assert_mean(up.log_weight.exp(), 1.0, "E[w]")
    assert_mean((-down).exp(), 1.0, "E[1 / w]")
    assert up.log_weight.mean() < 0 < down.mean()
    assert up.estimate.low < 0 < up.estimate.high or abs(up.estimate.log_z) < 0.05


def test_weights_of_zero_and_no_number(prior: GaussianComponents) -> None:
    half = FunctionTarget(
        lambda x: (
            torch.where(x[..., 0] > 0, math.log(2.0), -math.inf) - 0.5 * x.square().sum(-1) - math.log(2 * math.pi)
        ),
        dim=2,
    )
    estimate = smc(half, prior, 2000, seed=0).estimate
    # Wrong by less than 4.5 standard errors, 7e-6.
    assert abs(estimate.log_z) < Z_BOUND * (estimate.high - estimate.low) / 3.92 < 0.3
    holes = FunctionTarget(lambda x: torch.where(x[..., 0] > 0, -0.5 * x.square().sum(-1), math.nan), dim=2)
    assert any("NaN or +inf" in warning for warning in smc(holes, prior, 500, seed=0).estimate.warnings)
    nowhere = FunctionTarget(lambda x: 0.0 * x.sum(-1) - math.inf, dim=2)
    with pytest.raises(InputError, match="the density is zero, or no number, at all 50 particles"):
        smc(nowhere, prior, 50, move=RandomWalkMove(), seed=0)


@pytest.mark.slow
def test_a_single_family_gives_no_interval(generator: torch.Generator) -> None:
    # A prior that misses the target by a hundred widths.
    prior = GaussianComponents(torch.full((1, 2), 100.0), torch.eye(2)[None])
    estimate = smc(two_modes(), prior, 50, 1, seed=0).estimate
    assert estimate.high == math.inf and any("too few for an interval" in warning for warning in estimate.warnings)


def test_the_same_seed_gives_the_same_answer(prior: GaussianComponents) -> None:
    first, second = (smc(two_modes(), prior, 100, seed=5) for _ in range(2))
    assert (
        torch.equal(first.x, second.x)
        and first.estimate.low == second.estimate.low
        and first.estimate.log_z == second.estimate.log_z
    )
    assert smc(two_modes(), prior, 100, seed=6).estimate.log_z != first.estimate.log_z


def test_evaluations_are_counted_and_progress_is_told(prior: GaussianComponents) -> None:
    calls: list[int] = []

    class Counting(Target):
        def log_prob(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return -0.5 * x.square().sum(-1)

    told: list[float] = []
    result = smc(Counting(2), prior, 64, seed=0, progress=told.append)
    assert result.estimate.num_target_evaluations == sum(calls)
    assert told[-1] == 1.0 and told == [rung.beta for rung in result.ladder]


def test_systematic_draws_in_proportion(generator: torch.Generator) -> None:
    rows = systematic(torch.tensor([0.1, 0.2, 0.7]).log(), 1000, generator)
    counts = torch.bincount(rows, minlength=3)
    assert (counts - torch.tensor([100, 200, 700])).abs().max() <= 1
    assert systematic(torch.tensor([-math.inf, 0.0]), 5, generator).tolist() == [1] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_particles": 1}, "num_particles must be"),
        ({"num_moves": 0}, "num_moves must be"),
        ({"ess_threshold": 1.0}, "ess_threshold must be above 0 and below 1"),
    ],
)
def test_refuses(arguments: dict, message: str, prior: GaussianComponents) -> None:
    with pytest.raises(InputError, match=message):
        smc(two_modes(), prior, **arguments)
