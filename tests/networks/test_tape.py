"""Activations that a rollout keeps: the same densities and gradients as without."""

import pytest
import torch
from helpers import seeded

from diffsampler import Sampler
from diffsampler.behaviours import OnPolicy
from diffsampler.losses import LogVariance, SubTrajectoryBalance
from diffsampler.networks import (
    Control,
    CoordinatewiseControl,
    FourierMLP,
    GaussianBridgeMLP,
    LangevinControl,
    LearnedVariance,
    PreconditionedMLP,
    ReducedPrecision,
)
from diffsampler.paths import Path, evaluate, rollout
from diffsampler.processes import PinnedBrownian
from targets import GaussianMixture

TARGET = GaussianMixture(means=[[2.0, 1.0, -1.0], [-1.0, 0.5, 0.0]], scales=[0.5, 0.3], weights=[1.0, 3.0])


class Odd(FourierMLP):
    """Asks its perceptron twice at every state."""

    def forward(self, embedding, x, score=None):
        return super().forward(embedding, x) - super().forward(embedding, -x)


class Stacked(FourierMLP):
    """Asks for both signs at once."""

    def forward(self, embedding, x, score=None):
        plus, minus = super().forward(embedding, torch.stack([x, -x]))
        return plus - minus


class Warped(FourierMLP):
    """A learned layer before the perceptron."""

    def __init__(self, process):
        super().__init__(process)
        self.before = torch.nn.Linear(3, 3)

    def forward(self, embedding, x, score=None):
        return super().forward(embedding, self.before(x))


class LowRank(torch.nn.Linear):
    """A layer with a correction of its own."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        self.left, self.right = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(layer.in_features))

    def forward(self, x):
        return super().forward(x) + self.left * (x @ self.right).unsqueeze(-1)


def parametrised(process):
    control = FourierMLP(process)
    for layer in control.perceptron.hidden:
        torch.nn.utils.parametrizations.weight_norm(layer)
    return control


def low_rank(process):
    control = FourierMLP(process)
    control.perceptron.hidden[0] = LowRank(control.perceptron.hidden[0])
    return control


def hooked(process):
    control = FourierMLP(process)
    control.perceptron.hidden[0].register_forward_hook(lambda layer, given, found: 2 * found)
    return control


class Halves(Control):
    """Asks its perceptron for every other state only."""

    def __init__(self, process):
        super().__init__()
        self.network = FourierMLP(process)

    def embed(self, t):
        return self.network.embed(t)

    def forward(self, embedding, x, score=None):
        return torch.cat([self.network(embedding, x[..., ::2, :]), torch.zeros_like(x[..., 1::2, :])], -2)


CONTROLS = {
    "fourier": FourierMLP,
    "langevin": LangevinControl,
    "bridge": GaussianBridgeMLP,
    "preconditioned": PreconditionedMLP,
    "variance": lambda process: LearnedVariance(process, LangevinControl),
    "coordinatewise": CoordinatewiseControl,
    "reduced": lambda process: ReducedPrecision(process, FourierMLP),
    "odd": Odd,
    "stacked": Stacked,
    "warped": Warped,
    "parametrised": parametrised,
    "low rank": low_rank,
    "hooked": hooked,
    "halves": Halves,
}


def trained(control, **options):
    """A sampler whose networks say something."""
    sampler = Sampler(TARGET, process=PinnedBrownian, control=control, grid=6, flow=None, **options)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in sampler.policy.control.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return sampler


def gradients(sampler, path):
    sampler.zero_grad()
    trajectory = evaluate(sampler.dynamics, path)
    LogVariance()(trajectory).backward()
    return trajectory.log_pf.detach(), [p.grad.clone() for p in sampler.policy.control.parameters()]


pytestmark = pytest.mark.skipif(torch.get_default_device().type != "cpu", reason="kept on a CPU alone")


def generator():
    return seeded(0)


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_densities_and_gradients_are_the_same(name, dtype):
    sampler = trained(CONTROLS[name]).to(dtype)
    path = rollout(sampler.dynamics, 8, generator(), keep_activations=True)
    plain = rollout(sampler.dynamics, 8, generator())
    assert path.tapes is not None and plain.tapes is None
    torch.testing.assert_close(path.x, plain.x)
    for _ in range(2):  # a path may be evaluated again, then without
        log_pf, found = gradients(sampler, path)
        again, expected = gradients(sampler, plain)
        # A few hundred roundings of the dtype, 1e-7 or 1e-16, of numbers up to 10.
        rounding = 1e-4 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(log_pf, again, rtol=rounding, atol=rounding)
        torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)
        assert any(gradient.abs().max() > 0.01 for gradient in expected)


def test_what_is_kept_is_used():
    """A perceptron whose activations are known is not asked again."""
    sampler = trained(FourierMLP)
    path = rollout(sampler.dynamics, 8, generator(), keep_activations=True)
    calls = []
    for layer in sampler.policy.control.perceptron.hidden:
        layer.register_forward_hook(lambda *_: calls.append(1))
    gradients(sampler, path)
    assert not calls
    gradients(sampler, rollout(sampler.dynamics, 8, generator()))
    assert calls


def test_a_control_that_asks_for_something_else_is_answered_anew():
    sampler = trained(FourierMLP)
    path = rollout(sampler.dynamics, 8, generator(), keep_activations=True)
    other = Path(path.times, path.x + 0.1, path.log_prob, path.score, path.tapes)
    log_pf, found = gradients(sampler, other)
    again, expected = gradients(sampler, _without(other))
    torch.testing.assert_close(log_pf, again)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("change", ["step", "load", "data"])
def test_parameters_that_have_changed_are_asked_again(change):
    sampler = trained(LangevinControl)
    path = rollout(sampler.dynamics, 8, generator(), keep_activations=True)
    with torch.no_grad():
        if change == "step":
            for parameter in sampler.policy.parameters():
                parameter *= 1.1
        elif change == "data":
            for parameter in sampler.policy.parameters():
                parameter.data = 1.1 * parameter.data
        else:
            sampler.policy.load_state_dict({name: 1.1 * value for name, value in sampler.policy.state_dict().items()})
    log_pf, found = gradients(sampler, path)
    again, expected = gradients(sampler, _without(path))
    torch.testing.assert_close(log_pf, again)
    torch.testing.assert_close(found, expected)


def _without(path):
    return Path(path.times, path.x, path.log_prob, path.score)


def test_nothing_is_left_behind_where_the_target_raises():
    sampler = trained(FourierMLP)
    sampler.policy.control.register_forward_hook(_raise)
    with pytest.raises(RuntimeError, match="on purpose"):
        rollout(sampler.dynamics, 8, generator(), keep_activations=True)
    assert all(getattr(part, "tape", None) is None for part in sampler.modules())


def _raise(*_):
    raise RuntimeError("on purpose")


def test_too_large_batches_keep_nothing():
    sampler = trained(FourierMLP, checkpoint_activations=True)
    assert rollout(sampler.dynamics, 8, generator(), keep_activations=True).tapes is None


def test_training_keeps_activations_and_trains_the_same():
    """Three steps of DGFS with and without."""
    losses = []
    for checkpointed in (False, True):
        sampler = Sampler(TARGET, process=PinnedBrownian, control=LangevinControl, grid=6)
        sampler.checkpoint_activations = checkpointed
        optimizer, noise = torch.optim.Adam(sampler.parameters(), 1e-2), generator()
        for _ in range(3):
            optimizer.zero_grad()
            loss = SubTrajectoryBalance().step(sampler.dynamics, OnPolicy(), 16, noise, 0.0)
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
