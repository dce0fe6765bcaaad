"""The torus: wrapped kernels, exact weights, periodic networks."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import MILD, PERIODIC_CONTROLS, Z_BOUND, assert_mean, random_sampler, seeded

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.behaviours import Exploration, Replay
from diffsampler.coordinates import AffineCoordinates
from diffsampler.losses import ScoreFunctionReverseKL, SubTrajectoryBalance, TrajectoryBalance
from diffsampler.networks import (
    ForwardLookingFlow,
    FourierFlow,
    FourierMLP,
    GaussianBridgeMLP,
    LangevinControl,
    LearnedVariance,
    PreconditionedMLP,
)
from diffsampler.paths import evaluate, rollout
from diffsampler.processes import Torus
from diffsampler.spaces.kernels import WrappedGaussianKernel, wrap
from targets import VonMisesMixture


def periodic_sampler(**parts: object) -> Sampler:
    options = {"process": partial(Torus, sigma=1.4), "control": FourierMLP, "flow": FourierFlow, "grid": 5, **parts}
    return random_sampler(VonMisesMixture(), MILD, **options)


@pytest.mark.parametrize("std", [0.05, 0.6, 1.7, 3.0])
def test_wrapped_kernel_integrates_to_one(std: float) -> None:
    # Equal steps around a circle: exact to rounding for a smooth periodic density.
    line = torch.arange(400) * (2 * math.pi / 400) - math.pi
    kernel = WrappedGaussianKernel(torch.full((400, 1), 2.9), torch.tensor(std))
    total = kernel.log_prob(line[:, None]).exp().sum() * 2 * math.pi / 400
    assert abs(total - 1) < 1e-7, std


def test_wrapped_kernel_is_the_sum_over_turns(generator: torch.Generator) -> None:
    mean, y = 3 * torch.randn(2, 50, 2, generator=generator)
    std = torch.tensor([0.8, 2.5])
    normal = torch.distributions.Normal(mean, std)
    expected = sum(normal.log_prob(y + 2 * math.pi * k).exp() for k in range(-12, 13)).log().sum(-1)
    torch.testing.assert_close(WrappedGaussianKernel(mean, std).log_prob(y), expected, rtol=1e-7, atol=1e-7)
    narrow = WrappedGaussianKernel(mean, std).widened(torch.full((50, 2), -1.0))
    torch.testing.assert_close(narrow.log_prob(y), WrappedGaussianKernel(mean, std * math.exp(-1)).log_prob(y))


def test_wrapped_samples_match_the_density(generator: torch.Generator) -> None:
    # E[cos k x] of a wrapped normal is cos(k mean) exp(-k^2 std^2 / 2). n = 20000; |z| < 4.5 for six figures, 4e-5.
    kernel = WrappedGaussianKernel(torch.full((20_000, 1), 2.5), torch.tensor(1.1))
    x = kernel.rsample(generator)
    assert (x >= -math.pi).all() and (x < math.pi).all()
    for k in (1, 2, 3):
        shrink = math.exp(-0.5 * (k * 1.1) ** 2)
        assert_mean((k * x).cos().flatten(), math.cos(k * 2.5) * shrink, f"cos {k}")
        assert_mean((k * x).sin().flatten(), math.sin(k * 2.5) * shrink, f"sin {k}")


@pytest.mark.parametrize("num_steps", [1, 6])
def test_weights_are_unbiased_untrained(num_steps: int, generator: torch.Generator) -> None:
    # n = 20000 weights of random networks; |z| < 4.5, 7e-6.
    sampler = periodic_sampler(grid=num_steps)
    weight = sampler.weighted_draws(20_000, generator)[1].exp()
    assert 0.01 < weight.var() < 8
    assert_mean(weight, 1.0, f"T = {num_steps}: E[w] / Z")


def test_rolled_back_weights_are_unbiased_untrained(generator: torch.Generator) -> None:
    sampler = periodic_sampler()
    path = sampler.rollback(sampler.target.sample(20_000, generator), generator)
    with torch.no_grad():
        weight = (-evaluate(sampler.dynamics, path).log_weight).exp()
    # E[1 / w] = 1 / Z; the density is bounded away from 0, so that 1 / w has a variance.
    assert_mean(weight, 1.0, "E[Z / w]")


def test_wide_learned_steps_stay_normalised(generator: torch.Generator) -> None:
    # A width that the wrapped kernel cannot represent is bounded, in draws and densities alike.
    line = torch.arange(400) * (2 * math.pi / 400) - math.pi
    wide = WrappedGaussianKernel(torch.full((400, 1), 0.3), torch.tensor(1.0)).widened(torch.full((400, 1), 3.0))
    assert abs(wide.log_prob(line[:, None]).exp().sum() * 2 * math.pi / 400 - 1) < 1e-7


def test_rollout_and_evaluate_agree(generator: torch.Generator) -> None:
    sampler = periodic_sampler()
    path = rollout(sampler.dynamics, 9, seeded(1))
    assert (path.x >= -math.pi).all() and (path.x < math.pi).all()
    log_weight = sampler.weighted_draws(9, seeded(1))[1]
    torch.testing.assert_close(evaluate(sampler.dynamics, path).log_weight, log_weight)


def test_nothing_changes_after_a_turn(generator: torch.Generator) -> None:
    for control in PERIODIC_CONTROLS:
        sampler = periodic_sampler(control=control, flow=lambda dim: ForwardLookingFlow(dim, FourierFlow))
        path = rollout(sampler.dynamics, 6, generator)
        turned = type(path)(path.times, path.x + 2 * math.pi)
        torch.testing.assert_close(evaluate(sampler.dynamics, turned).u, evaluate(sampler.dynamics, path).u)
    torch.testing.assert_close(wrap(torch.tensor([3.5, -3.5])), torch.tensor([3.5 - 2 * math.pi, 2 * math.pi - 3.5]))


@pytest.mark.parametrize("loss", [SubTrajectoryBalance(), TrajectoryBalance()])
@pytest.mark.parametrize("behaviour", [Exploration(), Replay()])
def test_trains_on_every_behaviour(loss: object, behaviour: object, generator: torch.Generator) -> None:
    sampler = periodic_sampler()
    for _ in range(2):
        value = loss.step(sampler.dynamics, behaviour, 8, generator, 0.0)
        assert value.isfinite()
        value.backward()
    assert all(p.grad.isfinite().all() for p in sampler.policy.control.parameters())


def test_without_control_the_process_stays_uniform(generator: torch.Generator) -> None:
    sampler = Sampler(VonMisesMixture(), Torus, FourierMLP, flow=None, grid=7)
    x, log_weight = sampler.sample(20_000, return_log_weights=True, generator=generator)
    torch.testing.assert_close(log_weight, sampler.target.log_prob(x) + 2 * math.log(2 * math.pi))
    # E[cos x] = 0 with variance 1 / 2, for both angles, sine too: |z| < 4.5 for four figures, 3e-5.
    for figures in (x.cos(), x.sin()):
        assert (figures.mean(0).abs() < Z_BOUND * math.sqrt(0.5 / 20_000)).all()


def test_gradient_reaches_every_parameter(generator: torch.Generator) -> None:
    sampler = periodic_sampler(control=lambda dim: LearnedVariance(dim, FourierMLP), flow=None)
    ScoreFunctionReverseKL().step(sampler.dynamics, _on_policy(), 16, generator, 0.0).backward()
    for name, parameter in sampler.policy.control.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def _on_policy() -> object:
    from diffsampler.behaviours import OnPolicy

    return OnPolicy()


def test_refuses_what_is_not_periodic() -> None:
    for control in (LangevinControl, GaussianBridgeMLP, PreconditionedMLP):
        with pytest.raises(InputError, match=r"is for states in R\^D, but process Torus.*control=FourierMLP"):
            Sampler(VonMisesMixture(), Torus, control)
    with pytest.raises(InputError, match="leave coordinates out"):
        coordinates = AffineCoordinates(torch.zeros(2), 2 * torch.eye(2))
        Sampler(VonMisesMixture(), Torus, FourierMLP, flow=None, coordinates=coordinates)
    with pytest.raises(InputError, match="sigma must be at most 3"):
        Torus(2, sigma=4.0)
    with pytest.raises(InputError, match="sigma must be one number or 2"):
        Sampler(VonMisesMixture(), partial(Torus, sigma=[1.0, 1.0, 1.0]), FourierMLP, flow=None)


REALS = {
    "a Gaussian": lambda x: -x.square().sum(-1) / 18,
    "one real beside an angle": lambda x: x[..., 0].cos() - x[..., 1].square(),
    "two turns": lambda x: (x / 2).cos().sum(-1),
}


@pytest.mark.parametrize("name", REALS)
def test_what_is_no_angle_is_refused_before_anything_is_spent(name: str) -> None:
    sampler = Sampler(FunctionTarget(REALS[name], 2), Torus, FourierMLP, flow=None, grid=5)
    said = r"process Torus walks on angles, but FunctionTarget.log_prob is \S+ at some x and \S+ at x \+ 2 pi: take ano"
    for spend in (
        lambda: fit(sampler, loss=TrajectoryBalance(), seed=0, max_steps=1),
        lambda: sampler.sample(3),
        sampler.estimate_log_z,
    ):
        with pytest.raises(InputError, match=said) as caught:
            spend()
        assert ". " not in str(caught.value), "one sentence"


@pytest.mark.parametrize(
    "log_prob",
    [
        lambda x: 3 * x.cos().sum(-1),
        lambda x: 3 * x.float().cos().sum(-1) + 1e3,
        lambda x: -torch.remainder(x, 2 * math.pi).square().sum(-1),
        lambda x: torch.where((x.abs() < math.pi).all(-1), -x.square().sum(-1), -math.inf),
    ],
)
def test_what_is_an_angle_or_zero_outside_of_one_period_need_not_be_declared(log_prob: Callable) -> None:
    sampler = Sampler(FunctionTarget(log_prob, 2), Torus, FourierMLP, flow=None, grid=5)
    assert sampler.sample(3, seed=0).abs().max() <= math.pi
