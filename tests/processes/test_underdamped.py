"""Underdamped dynamics: exact weights with states of twice the dimension."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import MILD, UNDERDAMPED_CONTROLS, Z_BOUND, assert_mean, correlated_gaussian, random_sampler, seeded
from torch import Tensor

from diffsampler import Sampler
from diffsampler.behaviours import ExpertSamples, Exploration, OnPolicy, Replay
from diffsampler.coordinates import AffineCoordinates
from diffsampler.losses import (
    MaximumLikelihood,
    Objective,
    PathwiseReverseKL,
    ScoreFunctionReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
)
from diffsampler.networks import Control, FourierMLP
from diffsampler.paths import evaluate, rollback, rollout
from diffsampler.priors import GaussianPrior
from diffsampler.processes import Underdamped
from targets import Gaussian

WIDE = [[1.4, 0.3], [0.3, 1.2]]


def underdamped(**parts: object) -> Sampler:
    target = correlated_gaussian(covariance=WIDE)
    options = {
        "process": partial(Underdamped, sigma=0.7, friction=2.0, prior=partial(GaussianPrior, loc=0.2, scale=1.4)),
        "control": FourierMLP,
        "grid": 5,
        **parts,
    }
    return random_sampler(target, MILD, **options)


@pytest.mark.parametrize("control", UNDERDAMPED_CONTROLS)
@pytest.mark.parametrize("num_steps", [1, 6])
def test_weights_are_unbiased_untrained(
    num_steps: int, control: Callable[[int], Control], generator: torch.Generator
) -> None:
    # n = 20000 weights of random networks; |z| < 4.5, 7e-6.
    sampler = underdamped(grid=num_steps, control=control)
    x, log_weight = sampler.weighted_draws(20_000, generator)
    assert x.shape == (20_000, 2)
    weight = (log_weight - sampler.target.log_z).exp()
    assert 0.01 < weight.var() < 12, weight.var()
    assert_mean(weight, 1.0, f"{control.__name__}, T = {num_steps}: E[w] / Z")


def test_rolled_back_weights_are_unbiased_untrained(generator: torch.Generator) -> None:
    sampler = underdamped()
    path = sampler.rollback(sampler.target.sample(20_000, generator), generator)
    with torch.no_grad():
        weight = (sampler.target.log_z - evaluate(sampler.dynamics, path).log_weight).exp()
    assert 0.01 < weight.var() < 8, weight.var()
    assert_mean(weight, 1.0, "E[Z / w]")


@pytest.mark.parametrize("control", UNDERDAMPED_CONTROLS)
def test_rollout_evaluate_and_rollback_agree(control: Callable[[int], Control], generator: torch.Generator) -> None:
    sampler = underdamped(control=control)
    path = rollout(sampler.dynamics, 9, seeded(1))
    assert path.x.shape == (6, 9, 4)
    log_weight = sampler.weighted_draws(9, seeded(1))[1]
    torch.testing.assert_close(evaluate(sampler.dynamics, path).log_weight, log_weight)
    back = rollback(sampler.dynamics, path.x[-1], generator)
    # Forwards or backwards, a position moves by sigma h p' from the state before it.
    for states in (path, back):
        for k in range(5):
            *_, step = sampler.policy.process._coefficients(states.times[k], states.times[k + 1])
            moved = states.x[k, :, :2] + step * states.x[k + 1, :, 2:]
            torch.testing.assert_close(moved, states.x[k + 1, :, :2])
    # The score that the walk back used is the one that the batched pass takes from the state before.
    y, s, t = back.x[3], back.times[2], back.times[3]
    torch.testing.assert_close(sampler.policy.process.score_point(s, t, y)[:, :2], back.x[2, :, :2])


class Steady(FourierMLP):
    """No control."""

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


def test_uncontrolled_weights_concentrate_at_the_order_of_the_splitting(generator: torch.Generator) -> None:
    # Prior = target: nothing is annealed, and log w is the energy error of the splitting, of first order in the step at
    # both ends and of second in between: its variance falls as the square. n = 4000: each is known to 5 %, the order to
    # 0.05.
    target = Gaussian([0.0, 0.0], 1.0)
    variances = []
    for num_steps in (8, 32):
        process = partial(
            Underdamped, sigma=4.0, friction=2.0, prior=partial(GaussianPrior, loc=0.0, scale=1.0, learnable=False)
        )
        sampler = Sampler(target, process, Steady, flow=None, grid=num_steps)
        variances.append(sampler.weighted_draws(4000, generator)[1].var())
    order = math.log(variances[0] / variances[1]) / math.log(4)
    assert 1.7 < order < 2.3, (variances, order)


def test_momentum_of_a_long_walk_is_normal(generator: torch.Generator) -> None:
    target = Gaussian([0.0, 0.0], 1.0)
    process = partial(
        Underdamped, sigma=4.0, friction=2.0, prior=partial(GaussianPrior, loc=0.0, scale=1.0, learnable=False)
    )
    path = rollout(Sampler(target, process, Steady, flow=None, grid=64).dynamics, 20_000, generator)
    # Second moments within 4.5 standard errors, and the bias of a step of 1 / 16, below (1 / 16)^2.
    second = path.x[-1].square().mean(0)
    assert ((second - 1).abs() < Z_BOUND * math.sqrt(2 / 20_000) + 4e-3).all(), second


@pytest.mark.parametrize(
    ("loss", "behaviour"),
    [
        (SubTrajectoryBalance(), Exploration()),
        (TrajectoryBalance(), Replay()),
        (ScoreFunctionReverseKL(), OnPolicy()),
        (PathwiseReverseKL(True), OnPolicy()),
        (MaximumLikelihood(), ExpertSamples()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_trains(loss: Objective, behaviour: object, generator: torch.Generator) -> None:
    sampler = random_sampler(Gaussian([0.4, -0.3], WIDE), MILD, process=Underdamped, control=FourierMLP, grid=4)
    for _ in range(2):
        value = loss.step(sampler.dynamics, behaviour, 8, generator, 0.0)
        assert value.isfinite()
        value.backward()
    for name, parameter in sampler.policy.process.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def test_coordinates_and_counts(generator: torch.Generator) -> None:
    coordinates = AffineCoordinates(torch.tensor([1.0, -1.0]), torch.diag(torch.tensor([2.0, 0.5])))
    sampler = underdamped(coordinates=coordinates)
    weight = (sampler.weighted_draws(20_000, generator)[1] - sampler.target.log_z).exp()
    assert_mean(weight, 1.0, "E[w] / Z in coordinates")
    before = sampler.num_target_evaluations
    evaluate(sampler.dynamics, rollout(sampler.dynamics, 3, generator))
    # One a state: T + 1 = 6.
    assert sampler.num_target_evaluations - before == 18
    assert sampler.sample(4, seed=1).shape == (4, 2)


@pytest.mark.slow
def test_score_function_gradient_agrees_with_the_path_wise_one(generator: torch.Generator) -> None:
    """Every learned part of the process: what is learned must show in densities of given states."""
    sampler = random_sampler(
        Gaussian([0.4, -0.3], WIDE),
        MILD,
        process=partial(Underdamped, sigma=1.0, friction=2.0),
        control=FourierMLP,
        flow=None,
        grid=4,
    )
    parameters = [p for p in sampler.policy.process.parameters() if p.requires_grad]
    direction = [torch.ones_like(p) for p in parameters]
    # 200 gradients of 100 trajectories each way, summed over each parameter: the difference of means is within 4.5
    # standard errors for four figures, 3e-5.
    found = {}
    for loss in (PathwiseReverseKL(), ScoreFunctionReverseKL()):
        rows = []
        for _ in range(200):
            gradients = torch.autograd.grad(loss.step(sampler.dynamics, OnPolicy(), 100, generator, 0.0), parameters)
            rows.append(torch.stack([(g * d).sum() for g, d in zip(gradients, direction, strict=True)]))
        found[type(loss)] = torch.stack(rows)
    path, score = found.values()
    error = ((path.var(0) + score.var(0)) / 200).sqrt()
    assert len(error) >= 4 and ((path.mean(0) - score.mean(0)).abs() < Z_BOUND * error).all()
    assert (path.mean(0).abs() > 10 * path.std(0) / math.sqrt(200)).any()


def test_a_clip_bounds_the_kick() -> None:
    process = Underdamped(2, 2.0, 3.0, clip=5.0)
    s, t = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.75, dtype=torch.float64)
    x, control = torch.zeros(1, 4), torch.tensor([[9.0, 9.0, 0.2, 0.3]])
    means = [process.forward_kernel(s, t, x, control, torch.full((1, 4), score)).momentum.mean for score in (5.0, 1e9)]
    torch.testing.assert_close(means[0], means[1])
    # Only the half of the control that pushes momenta counts.
    control[:, :2] = 0.0
    torch.testing.assert_close(
        process.forward_kernel(s, t, x, control, torch.full((1, 4), 5.0)).momentum.mean, means[0]
    )
    decay, std, step = process._coefficients(s, t)
    kick = 0.5 * step * 0.625 * 5.0  # the annealing is a straight line, and the prior's score is 0 at the origin
    expected = decay * kick + kick + std * 0.5 * torch.tensor([[0.2, 0.3]])
    torch.testing.assert_close(means[0], expected.to(means[0].dtype))
