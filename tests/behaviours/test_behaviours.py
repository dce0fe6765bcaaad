"""One battery for all behaviours, over the list in helpers.py."""

import io
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import (
    BEHAVIOURS,
    MILD,
    ConstantControl,
    assert_mean,
    by_name,
    correlated_gaussian,
    random_sampler,
    two_modes,
)
from torch import nn

from diffsampler import InputError, Sampler
from diffsampler.behaviours import Behaviour, Exploration, OnPolicy
from diffsampler.paths import evaluate, rollout
from diffsampler.processes import PinnedBrownian

every_behaviour = pytest.mark.parametrize("make", BEHAVIOURS, ids=by_name)


@every_behaviour
def test_returns_states_only(make: Callable[[], Behaviour], device: torch.device, generator: torch.Generator) -> None:
    behaviour, sampler = make(), random_sampler(two_modes(), grid=3).to(device)
    assert not isinstance(behaviour, nn.Module), make.__name__
    for progress in (0.0, 0.3, 1.0):
        path = behaviour.paths(sampler.dynamics, 5, generator, progress)
        assert path.x.shape == (4, 5, 2) and path.x.isfinite().all(), make.__name__
        assert not path.x.requires_grad, make.__name__


@every_behaviour
def test_generator_decides(make: Callable[[], Behaviour]) -> None:
    sampler = random_sampler(two_modes(), grid=3)
    first, second = (make().paths(sampler.dynamics, 5, torch.Generator().manual_seed(2), 0.1).x for _ in range(2))
    assert torch.equal(first, second), make.__name__


@every_behaviour
def test_densities_are_those_of_the_model(make: Callable[[], Behaviour], generator: torch.Generator) -> None:
    """Whatever drew the states, log P_F is the Gaussian of the model's own width."""
    sampler = random_sampler(two_modes(), process=partial(PinnedBrownian, sigma=1.3), grid=4)
    path = make().paths(sampler.dynamics, 5, generator, 0.0)
    trajectory = evaluate(sampler.dynamics, path)
    embedding = sampler.policy.control.embed(path.times)
    for k in range(4):
        control = sampler.policy.control(embedding[k], path.x[k], sampler.target.score(path.x[k]))
        normal = torch.distributions.Normal(path.x[k] + 1.3 * control / 4, 1.3 / 2)
        torch.testing.assert_close(trajectory.log_pf[k], normal.log_prob(path.x[k + 1]).sum(-1), msg=make.__name__)


@every_behaviour
def test_state_survives_a_checkpoint(make: Callable[[], Behaviour], generator: torch.Generator) -> None:
    behaviour, sampler = make(), random_sampler(two_modes(), grid=3)
    behaviour.paths(sampler.dynamics, 5, generator, 0.0)
    state = behaviour.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = make()
    other.load_state_dict(state)
    first, second = (b.paths(sampler.dynamics, 5, torch.Generator().manual_seed(2), 0.5).x for b in (behaviour, other))
    assert torch.equal(first, second), make.__name__


def test_on_policy_is_the_rollout() -> None:
    sampler = random_sampler(two_modes(), grid=3)
    path = OnPolicy().paths(sampler.dynamics, 5, torch.Generator().manual_seed(2), 0.0)
    plain = rollout(sampler.dynamics, 5, torch.Generator().manual_seed(2))
    assert torch.equal(path.x, plain.x) and torch.equal(path.score, plain.score)


@pytest.mark.parametrize(
    ("progress", "scale"), [(0.0, 1.8), (0.125, 1.6), (0.25, 1.4), (0.5, 1.0), (0.9, 1.0), (1.0, 1.0)]
)
def test_exploration_widens_the_noise_on_schedule(progress: float, scale: float, generator: torch.Generator) -> None:
    # n = 20000 increments in each of 4 steps and 2 coordinates: their variance over sigma^2 h is the squared scale,
    # and their mean is the control's, unscaled; |z| < 4.5, a false alarm of 7e-6 each.
    sampler = Sampler(
        correlated_gaussian(), partial(PinnedBrownian, sigma=0.7), ConstantControl([0.5, -1.0]), flow=None, grid=4
    )
    path = Exploration(excess=0.8, until=0.5).paths(sampler.dynamics, 20_000, generator, progress)
    residual = path.x.diff(dim=0) - 0.7 * torch.tensor([0.5, -1.0]) / 4
    assert_mean(residual.flatten(), 0.0, "mean of the noise")
    assert_mean(residual.flatten() ** 2 / (0.7**2 / 4), scale**2, "variance of the noise")


def test_weights_of_explored_paths_are_off_policy(generator: torch.Generator) -> None:
    # E[w] = Z holds on the policy alone: under the wider noise the mean must miss by far, or the exploring policy's
    # densities were used. n = 20000, |z| < 4.5; E[w] off the policy is known to a few per cent.
    target = correlated_gaussian()
    sampler = random_sampler(target, MILD, grid=4)
    with torch.no_grad():
        on, off = (
            (
                evaluate(sampler.dynamics, b.paths(sampler.dynamics, 20_000, generator, 0.0)).log_weight - target.log_z
            ).exp()
            for b in (OnPolicy(), Exploration(excess=1.0))
        )
    assert_mean(on, 1.0, "on policy: E[w] / Z")
    assert abs(off.mean() - 1) > 0.3


@pytest.mark.parametrize("excess", [-0.1, float("nan"), float("inf"), "1"])
def test_refuses_bad_excess(excess: object) -> None:
    with pytest.raises(InputError, match="excess"):
        Exploration(excess=excess)


@pytest.mark.parametrize("until", [0.0, -1.0, 1.5, float("nan")])
def test_refuses_bad_until(until: float) -> None:
    with pytest.raises(InputError, match="until"):
        Exploration(until=until)
