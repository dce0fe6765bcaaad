"""The drift by Monte Carlo to a reward: against closed forms, and what it costs."""

import math
from functools import partial

import pytest
import torch
from helpers import Z_BOUND, CountingTarget
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target, fit
from diffsampler.coordinates import ScaledCoordinates
from diffsampler.losses import LogVariance
from diffsampler.networks import FollmerDrift, FourierMLP, LangevinControl, LearnedVariance
from diffsampler.paths import ProbabilityFlow, evaluate, rollout
from diffsampler.processes import PinnedBrownian, VariancePreserving
from targets import Gaussian, GaussianMixture

SIGMA, MEAN, STD = 1.5, torch.tensor([0.7, -0.4]), torch.tensor([0.6, 1.2])


def product(differentiable: bool = True) -> Target:
    """N(MEAN, STD^2), as a function."""
    return FunctionTarget(
        lambda x: -0.5 * ((x - MEAN.to(x)) / STD.to(x)).square().sum(-1), 2, differentiable=differentiable
    )


def control_of(target: Target, **options: object) -> torch.nn.Module:
    process = partial(PinnedBrownian, sigma=SIGMA)
    return Sampler(target, process, partial(FollmerDrift, **options), flow=None, grid=10).policy.control


def closed_form(t: Tensor, x: Tensor) -> Tensor:
    """sigma d/dx log E[rho]: y given x_t = x has precision 1 / (sigma^2 (1 - t)) + b, b = 1 / STD^2 - 1 / SIGMA^2."""
    excess = STD.to(x) ** -2 - SIGMA**-2
    pull = MEAN.to(x) * STD.to(x) ** -2 - excess * x
    return SIGMA * pull / (1 + excess * SIGMA**2 * (1 - t))


@pytest.mark.parametrize("t", [0.0, 0.5, 0.999, 1.0])
def test_to_a_gaussian_it_is_the_closed_form(t: float) -> None:
    """With the score, whatever the draws: both derivatives are linear in y, and their mixture is constant."""
    time, x = torch.tensor(t).double(), torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    control = control_of(product(), num_draws=8).double()
    found = control(control.embed(time[None])[0], x)
    # At t = 1 the normal density's width is kept at 1e-3 sigma.
    torch.testing.assert_close(found, closed_form(time, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.5, 0.9])
def test_without_a_score_it_is_the_closed_form_to_its_own_error(t: float) -> None:
    time, x = torch.tensor(t).double(), torch.zeros(1, 2).double()
    control = control_of(product(differentiable=False), num_draws=4096).double()
    found = control(control.embed(time[None])[0], x)
    # The error of a self-normalised mean of independent draws, which Sobol points stay below: 7e-6 beyond 4.5 of it.
    y = x + SIGMA * math.sqrt(1 - t) * control.noise
    share = (-0.5 * ((y - MEAN) / STD).square().sum(-1) + 0.5 * (y / SIGMA).square().sum(-1)).softmax(0)
    spread = control.noise / math.sqrt(1 - t) - closed_form(time, x)
    error = (share.square().unsqueeze(-1) * spread.square()).sum(0).sqrt()
    assert ((found - closed_form(time, x)).abs() < Z_BOUND * error).all()


def test_log_z_needs_no_training() -> None:
    target = GaussianMixture([[1.5, 0.0], [-1.0, 1.0]], 0.5, [0.3, 0.7])
    process = partial(PinnedBrownian, sigma=1.5)
    log_z, ess = [], []
    for control in (partial(FollmerDrift, num_draws=64), FourierMLP):
        sampler = Sampler(target, process, control, flow=None, grid=40)
        weight = sampler.sample(2000, seed=0, return_log_weights=True)[1].exp()
        log_z.append((weight.mean() - 1) / (weight.std() / math.sqrt(len(weight))))
        ess.append(weight.sum().square() / weight.square().sum() / len(weight))
    assert abs(log_z[0]) < Z_BOUND  # weights of an ESS of half have means that are normal to 4.5 errors
    assert ess[0] > 0.5 and ess[0] > 2 * ess[1]


def test_coordinates_and_paths_are_the_samplers() -> None:
    """The density that is asked is that of states, and densities of a path can be computed again."""
    target = Gaussian([30.0, -20.0], 100.0)
    make = partial(Sampler, target, PinnedBrownian, partial(FollmerDrift, num_draws=16), None, 20)
    sampler = make(coordinates=partial(ScaledCoordinates, scale=20.0))
    path = rollout(sampler.dynamics, 200, torch.Generator().manual_seed(0))
    first, second = (evaluate(sampler.dynamics, path) for _ in range(2))
    assert torch.equal(first.log_pf, second.log_pf)
    assert sampler.estimate_log_z(500, seed=0).ess > 0.8
    sampler.move_to(Gaussian([-30.0, 20.0], 100.0))
    assert sampler.estimate_log_z(500, seed=0).ess > 0.8


@pytest.mark.parametrize("network", [FourierMLP, LangevinControl, partial(LearnedVariance, network=FourierMLP)])
def test_evaluations_are_counted(network: object) -> None:
    target = CountingTarget(product())
    control = partial(FollmerDrift, network=network, num_draws=6)
    sampler = Sampler(target, PinnedBrownian, control, flow=None, grid=5)
    before = target.count
    x, log_weight = sampler.sample(70, seed=0, return_log_weights=True)
    assert log_weight.isfinite().all() and target.count - before >= 70 * (5 * 6 + 1)
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    fit(sampler, max_steps=2, batch_size=8, num_eval_samples=50, loss=LogVariance(), **quiet)
    assert sampler.num_target_evaluations == target.count


def test_zero_density_pulls_nowhere() -> None:
    target = FunctionTarget(lambda x: torch.where(x[..., 0] > 40, -x.square().sum(-1), -math.inf), 2)
    control = control_of(target, num_draws=4)
    assert torch.equal(control(control.embed(torch.tensor([0.5]))[0], torch.zeros(3, 2)), torch.zeros(3, 2))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="is for process=PinnedBrownian, got VariancePreserving"):
        Sampler(product(), VariancePreserving, FollmerDrift)
    with pytest.raises(InputError, match="must be even, got 7"):
        control_of(product(), num_draws=7)
    sampler = Sampler(product(), PinnedBrownian, FollmerDrift, flow=None, grid=5)
    with pytest.raises(InputError, match="importance weights"):
        ProbabilityFlow(sampler.dynamics)
