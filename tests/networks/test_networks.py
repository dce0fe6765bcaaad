"""One battery for controls and one for flows, over the lists in helpers.py."""

import math
from functools import partial

import pytest
import torch
from helpers import (
    CONTROLS,
    FLOWS,
    CountingTarget,
    MixtureBridge,
    by_name,
    correlated_gaussian,
    random_sampler,
    randomise,
)
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.losses import SubTrajectoryBalance
from diffsampler.networks import (
    Control,
    CoordinatewiseControl,
    ForwardLookingFlow,
    FourierFlow,
    FourierMLP,
    GaussianBridgeMLP,
    LangevinControl,
    LearnedVariance,
    PreconditionedMLP,
    StateFlow,
)
from diffsampler.networks.fourier import FourierTimeEmbedding, TimePerceptron
from diffsampler.paths import evaluate, rollout
from diffsampler.processes import PinnedBrownian, Process, VariancePreserving
from targets import GaussianMixture

TIMES = torch.tensor([0.0, 0.1, 0.5, 0.9], dtype=torch.float64)

every_control = pytest.mark.parametrize("make", CONTROLS, ids=by_name)
every_flow = pytest.mark.parametrize("make", FLOWS, ids=by_name)


@every_control
def test_control_starts_without_a_learned_part(make: type[Control], generator: torch.Generator) -> None:
    x, score = torch.randn(2, 4, 5, 3, generator=generator)
    control = make(3)
    # The Langevin gate starts as t, everything learned at 0.
    gated = make in {LangevinControl, LearnedVariance}
    expected = TIMES[:, None, None] * score if gated else torch.zeros_like(x)
    found = control(control.embed(TIMES)[:, None], x, score)
    torch.testing.assert_close(found[..., :3], expected, msg=make.__name__)
    # What may follow is the log of a factor on the step's width.
    assert not found[..., 3:].any(), make.__name__


@every_flow
def test_flow_starts_without_a_learned_part(make: type[StateFlow], generator: torch.Generator) -> None:
    x, interpolation = torch.randn(4, 5, 3, generator=generator), torch.randn(4, 5, generator=generator)
    flow = make(3)
    expected = interpolation if flow.uses_interpolation else torch.zeros(4, 5)
    torch.testing.assert_close(flow(flow.embed(TIMES)[:, None], x, interpolation), expected, msg=make.__name__)


@every_control
def test_control_of_a_broadcast_embedding_equals_row_by_row(make: type[Control], generator: torch.Generator) -> None:
    x, score = torch.randn(2, 4, 5, 3, generator=generator)
    control = make(3)
    randomise(control)
    together = control(control.embed(TIMES)[:, None], x, score)
    assert together.shape in {(4, 5, 3), (4, 5, 6)} and together.std(0).min() > 0, make.__name__
    for k in range(4):
        # One row of embeddings for each state, as a naive implementation would compute it, and () as in a rollout.
        embedding = control.embed(TIMES[k].expand(5))
        torch.testing.assert_close(together[k], control(embedding, x[k], score[k]), msg=make.__name__)
        torch.testing.assert_close(together[k], control(control.embed(TIMES)[k], x[k], score[k]), msg=make.__name__)


@every_flow
def test_flow_of_a_broadcast_embedding_equals_row_by_row(make: type[StateFlow], generator: torch.Generator) -> None:
    x, interpolation = torch.randn(4, 5, 3, generator=generator), torch.randn(4, 5, generator=generator)
    flow = make(3)
    randomise(flow)
    together = flow(flow.embed(TIMES)[:, None], x, interpolation)
    assert together.shape == (4, 5) and together.std(0).min() > 0, make.__name__
    for k in range(4):
        embedding = flow.embed(TIMES[k].expand(5))
        torch.testing.assert_close(together[k], flow(embedding, x[k], interpolation[k]), msg=make.__name__)


@pytest.mark.parametrize("make", [*CONTROLS, *FLOWS], ids=by_name)
def test_state_dict_keeps_the_function(make: type, generator: torch.Generator) -> None:
    x, score, interpolation = (
        torch.randn(5, 3, generator=generator),
        torch.randn(5, 3, generator=generator),
        torch.ones(5),
    )
    first, second = make(3), make(3)
    randomise(first)
    second.load_state_dict(first.state_dict())
    extra = score if isinstance(first, Control) else interpolation
    values = [net(net.embed(TIMES)[2], x, extra) for net in (first, second)]
    assert torch.equal(*values), make.__name__


def test_langevin_clip_is_exact() -> None:
    control = LangevinControl(3, clip=2.0, initial_gate=0.5)
    score = torch.tensor([[1.5, -7.0, 2.5], [math.inf, -math.inf, math.nan]])
    found = control(control.embed(torch.ones(1))[0], torch.zeros(2, 3), score)
    assert torch.equal(found, 0.5 * torch.tensor([[1.5, -2.0, 2.0], [2.0, -2.0, 0.0]]))


def test_langevin_gate_multiplies_the_score_alone(generator: torch.Generator) -> None:
    x, score = torch.randn(2, 5, 3, generator=generator)
    control = LangevinControl(3)
    randomise(control)
    embedding = control.embed(TIMES)[2]
    zero, one, two = (control(embedding, x, factor * score) for factor in (0.0, 1.0, 2.0))
    torch.testing.assert_close(two - one, one - zero)
    torch.testing.assert_close((one - zero) / score, ((one - zero) / score)[:1, :1].expand(5, 3))
    torch.testing.assert_close(zero, control.network(control.network.embed(TIMES)[2], x))


def test_nan_scores_are_tamed_and_counted(generator: torch.Generator) -> None:
    # The score of sqrt(|x|) is NaN or infinite at the origin, where every trajectory starts.
    target = FunctionTarget(lambda x: -(x - 0.5).square().sum(-1) + x[..., 0].abs().sqrt(), dim=2)
    assert not target.score(torch.zeros(1, 2)).isfinite().all()
    sampler = random_sampler(target, grid=3)
    trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 5, generator))
    assert trajectory.log_weight.isfinite().all()
    assert sampler.counter.num_invalid == 5
    SubTrajectoryBalance()(trajectory).backward()
    assert all(parameter.grad.isfinite().all() for parameter in sampler.parameters())


def test_forward_looking_interpolates_between_the_ends(generator: torch.Generator) -> None:
    sampler = Sampler(correlated_gaussian(), grid=4)
    sampler.policy.log_z.data.fill_(0.3)
    path = rollout(sampler.dynamics, 6, generator)
    log_flow = evaluate(sampler.dynamics, path).log_flow
    for k in (1, 2, 3):
        t = path.times[k]
        log_prior_side = 0.3 + sampler.policy.process.log_reference(t, path.x[k])
        expected = (1 - t) * log_prior_side + t * sampler.target.log_prob(path.x[k])
        torch.testing.assert_close(log_flow[k - 1], expected)


def test_forward_looking_flow_learns_log_z(generator: torch.Generator) -> None:
    sampler = random_sampler(grid=4)
    path = rollout(sampler.dynamics, 6, generator)
    log_flow = evaluate(sampler.dynamics, path).log_flow
    for k in (1, 2, 3):
        (gradient,) = torch.autograd.grad(log_flow[k - 1].sum(), sampler.policy.log_z, retain_graph=True)
        torch.testing.assert_close(gradient, 6 * (1 - path.times[k]))


def test_forward_looking_where_the_density_is_zero(generator: torch.Generator) -> None:
    def log_prob(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] > 0.1, -((x - 0.5) ** 2).sum(-1), -math.inf)

    sampler = random_sampler(FunctionTarget(log_prob, dim=2), grid=5)
    trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 50, generator))
    assert 0 < trajectory.log_prob.isneginf().sum() < 50
    assert trajectory.log_flow.isfinite().all() and trajectory.u.isfinite().all()


def test_wrappers_take_any_network() -> None:
    target = CountingTarget(correlated_gaussian())
    sampler = Sampler(
        target,
        control=lambda dim: LangevinControl(dim, network=lambda dim: FourierMLP(dim, width=8, depth=1, frequencies=4)),
        flow=lambda dim: ForwardLookingFlow(dim, network=lambda dim: FourierFlow(dim, width=8, depth=3)),
        grid=2,
    )
    assert sampler.policy.control.network.perceptron.output.in_features == 8
    assert len(sampler.policy.flow.network.perceptron.hidden) == 3
    assert sampler.sample(3, seed=0).shape == (3, 2)


def test_time_embedding_by_hand() -> None:
    embedding = FourierTimeEmbedding(4, frequencies=3)
    phase = torch.tensor([0.1, 50.05, 100.0]) * 0.3
    expected = embedding.layers(torch.cat([phase.sin(), phase.cos()]))
    torch.testing.assert_close(embedding(torch.tensor(0.3, dtype=torch.float64)), expected)


@pytest.mark.parametrize("name", ["in_dim", "width", "depth", "frequencies"])
def test_refuses_bad_sizes(name: str) -> None:
    sizes = {"in_dim": 2, "out_dim": 1, "width": 8, "depth": 2, "frequencies": 4, name: 0}
    with pytest.raises(InputError, match=name):
        TimePerceptron(**sizes)
    with pytest.raises(InputError, match="clip"):
        LangevinControl(2, clip=0.0)


@pytest.mark.parametrize(
    "process",
    [VariancePreserving(1, sigma=1.4), PinnedBrownian(1, sigma=1.4)],
    ids=lambda p: type(p).__name__,
)
@torch.no_grad()
def test_preconditioned_control_has_the_size_of_that_to_narrow_modes(process, generator: torch.Generator) -> None:
    # Two modes a tenth as wide as the process, twice its width from the origin; x_1 first, then x_t given x_1.
    target = GaussianMixture(means=[[-2.8], [2.8]], scales=[[0.14], [0.14]], weights=[0.5, 0.5])
    control, times = PreconditionedMLP(process), torch.linspace(0.15, 1.0, 20, dtype=torch.float64)
    x = target.sample(2000, generator)
    for k in reversed(range(20)):
        # The control itself grows tenfold and more. 2000 draws leave an error of a few percent.
        ratio = control_to(target, process, times[k], x).square().mean().sqrt() / control.embed(times[k])[0]
        assert 0.5 < ratio < 2
        if k:
            x = process.backward_kernel(times[k - 1], times[k], x).rsample(generator)
    assert control.embed(torch.ones(()))[0] == pytest.approx(10.0) and control.embed(torch.zeros(()))[0] < 1


def control_to(target: GaussianMixture, process: Process, t: Tensor, x: Tensor) -> Tensor:
    """The control of the continuous process that ends in a mixture."""
    if isinstance(process, PinnedBrownian):
        return MixtureBridge(target, 1.4).control(t[None], x)
    signal = process.schedule.log_signal(t).exp()
    scales = (signal**2 * target.scales**2 + (1 - signal**2) * 1.4**2).sqrt()
    marginal = GaussianMixture(signal * target.means, scales, target.weights)
    return x / 1.4 + 1.4 * marginal.score(x)


def test_gaussian_bridge_is_the_control_to_a_gaussian(generator: torch.Generator) -> None:
    # One component of a mixture in the origin: MixtureBridge writes the same control from the bridge's conditionals.
    scales, sigma = torch.tensor([[0.3, 2.5]]), 1.4
    oracle = MixtureBridge(GaussianMixture(means=[[0.0, 0.0]], scales=scales, weights=[1.0]), sigma)
    control = GaussianBridgeMLP(PinnedBrownian(2, sigma=sigma))
    with torch.no_grad():
        # Through the soft bound: log v = 10 tanh(bias / 10).
        control.log_variance.output.bias.copy_(10 * torch.atanh(2 * (scales[0] / sigma).log() / 10))
    x = torch.randn(4, 5, 2, generator=generator)
    expected = oracle.control(TIMES[:, None, None], x)
    torch.testing.assert_close(control(control.embed(TIMES)[:, None], x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_bridge_cannot_blow_up(dtype: torch.dtype) -> None:
    control, t = GaussianBridgeMLP(1).to(dtype), TIMES[1:].to(dtype)
    for bias in (-1e3, -20.0, 20.0, 1e3):
        control.log_variance.output.bias.data.fill_(bias)
        coefficient = control(control.embed(t)[:, None], torch.ones(3, 1, 1, dtype=dtype)).flatten()
        assert (coefficient >= -1 / (1 - t)).all() and (coefficient <= 1 / t).all(), bias
    # At the bound there is still a way back.
    control.log_variance.output.bias.data.fill_(20.0)
    control(control.embed(t)[:, None], torch.ones(3, 1, 1, dtype=dtype)).sum().backward()
    assert control.log_variance.output.bias.grad.abs() > 0


def test_learned_variance_stays_within_its_bound(generator: torch.Generator) -> None:
    control = LearnedVariance(2, network=FourierMLP, bound=0.5)
    randomise(control, scale=3.0)
    found = control(control.embed(TIMES)[:, None], torch.randn(4, 50, 2, generator=generator))
    assert found.shape == (4, 50, 4) and found[..., 2:].abs().max() <= 0.5 and found[..., 2:].abs().max() > 0.4
    embedding = control.network.embed(TIMES)[:, None]
    x = torch.randn(4, 50, 2, generator=generator)
    torch.testing.assert_close(control(control.embed(TIMES)[:, None], x)[..., :2], control.network(embedding, x))
    with pytest.raises(InputError, match="bound"):
        LearnedVariance(2, bound=0.0)


def test_samplers_tell_their_control_the_scale() -> None:
    sampler = Sampler(correlated_gaussian(), process=partial(PinnedBrownian, sigma=[2.0, 3.0]))
    assert torch.equal(sampler.policy.control.network.scale, torch.tensor([2.0, 3.0]))


@pytest.mark.parametrize("wrapper", [LangevinControl, LearnedVariance])
def test_widths_are_learned_outermost(wrapper: type[Control]) -> None:
    with pytest.raises(InputError, match=f"network of {wrapper.__name__} must return a control alone"):
        wrapper(1, network=LearnedVariance)


def test_coordinatewise_control_speaks_the_process_units(generator: torch.Generator) -> None:
    control = CoordinatewiseControl(3)
    randomise(control)
    x, score = torch.randn(2, 5, 3, generator=generator)
    one = control(control.embed(TIMES)[2], x, score) - control.network(control.network.embed(TIMES)[2], x)
    wide = CoordinatewiseControl(PinnedBrownian(3, sigma=2.0))
    wide.load_state_dict(control.state_dict())
    two = wide(wide.embed(TIMES)[2], 2 * x, score) - wide.network(wide.network.embed(TIMES)[2], 2 * x)
    torch.testing.assert_close(one, two)
