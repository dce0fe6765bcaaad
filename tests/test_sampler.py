"""The sampler: exact weights, exact optima, and what it promises of seeds, chunks and counts."""

import math
from functools import partial

import pytest
import torch
from helpers import (
    MILD,
    ConstantControl,
    CountingTarget,
    ExactFlow,
    FoellmerControl,
    MixtureBridge,
    ZeroControl,
    assert_mean,
    centred_gaussian,
    correlated_gaussian,
    mean_and_error,
    random_sampler,
    two_modes,
)
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.behaviours import Exploration
from diffsampler.losses import SubTrajectoryBalance
from diffsampler.networks import ForwardLookingFlow, FourierFlow, FourierMLP, LangevinControl
from diffsampler.paths import Path, Trajectory, evaluate, rollout
from diffsampler.processes import Bridge, PinnedBrownian
from diffsampler.processes.grids import JitteredGrid, PowerGrid
from diffsampler.recipes import Dgfs

SIGMA = torch.tensor([0.7, 1.6], dtype=torch.float64)
FIELDS = ("log_pf", "log_pb", "log_prior", "log_prob", "log_z", "log_flow", "u", "log_weight")


def new_generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- exact weights


@pytest.mark.parametrize("grid", [1, 2, 30, PowerGrid(20, 3.0), JitteredGrid(20)], ids=repr)
def test_every_weight_is_z_at_the_exact_optimum(grid: object, generator: torch.Generator) -> None:
    target = centred_gaussian(SIGMA)
    # FourierMLP starts at zero, the optimal control for this target.
    sampler = Sampler(target, partial(PinnedBrownian, sigma=SIGMA.tolist()), FourierMLP, grid=grid)
    _, log_weight = sampler.sample(100, seed=0, return_log_weights=True)
    evaluated = evaluate(sampler.dynamics, rollout(sampler.dynamics, 100, generator)).log_weight
    rolled_back = evaluate(
        sampler.dynamics, sampler.rollback(torch.randn(100, 2, generator=generator), generator)
    ).log_weight
    for values in (log_weight, evaluated, rolled_back):
        assert (values - target.log_z).abs().max() < 1e-11
    estimate = sampler.estimate_log_z(100, seed=1)
    assert estimate.low <= estimate.log_z <= estimate.high
    assert abs(estimate.log_z - target.log_z) < 1e-11 and abs(estimate.ess - 1) < 1e-11


def foellmer_sampler(num_steps: int, sigma: float = 1.4) -> Sampler:
    bridge = MixtureBridge(two_modes(), sigma)
    flow = ExactFlow(bridge.log_marginal, log_z=0.0)
    return Sampler(two_modes(), partial(PinnedBrownian, sigma=sigma), FoellmerControl(bridge), flow, grid=num_steps)


def test_weights_concentrate_at_first_order_under_the_exact_control(generator: torch.Generator) -> None:
    # Each Euler step misses h^(3/2) of the path, against noise of h^(1/2): Var[log w] is a sum of T terms of order h^2,
    # so of order 1 / T. n = 4000; a variance of log w has a relative error of about (kurtosis / n)^1/2 = 5 %, so the
    # slope over a factor 8 is known to 0.04 and the bounds stand at five standard errors or more.
    counts = torch.tensor([16.0, 32.0, 64.0, 128.0])
    variances, losses = [], []
    for count in counts:
        sampler = foellmer_sampler(int(count))
        with torch.no_grad():
            trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 4000, generator))
            # All pairs: the flow enters at every step, so that a shift of its index would keep this from vanishing.
            losses.append(SubTrajectoryBalance()(trajectory))
        variances.append(trajectory.log_weight.var())
    for name, values in (("Var[log w]", torch.stack(variances)), ("SubTB", torch.stack(losses))):
        x, y = counts.log() - counts.log().mean(), values.log()
        slope = float((x * y).sum() / (x * x).sum())
        assert -1.25 < slope < -0.75, f"{name} falls as T^{slope:.2f}: {values.tolist()}"
        assert values[-1] < 0.05, name


def test_estimate_of_the_exact_control_covers_log_z() -> None:
    # A 4.5 sigma interval (a false alarm of 7e-6): the stated one is 1.96 sigma wide.
    estimate = foellmer_sampler(50).estimate_log_z(4000, seed=3)
    assert abs(estimate.log_z) < 4.5 / 1.96 * (estimate.high - estimate.log_z)
    assert estimate.high - estimate.low < 0.05 and estimate.ess > 0.9 and not estimate.warnings


def truncated(log_z: float = 0.8) -> FunctionTarget:
    """The correlated Gaussian where x_0 > 0.2: the origin, where trajectories start, has density zero."""
    whole = correlated_gaussian(log_z)
    # x_0 is N(0.4, 0.9).
    mass = 0.5 * math.erfc((0.2 - 0.4) / math.sqrt(2 * 0.9))
    return FunctionTarget(
        lambda x: torch.where(x[..., 0] > 0.2, whole.log_prob(x), -math.inf), dim=2, log_z=log_z + math.log(mass)
    )


@pytest.mark.parametrize("control", [FourierMLP, LangevinControl])
def test_density_with_zeros(control: type, generator: torch.Generator) -> None:
    # n = 20000, |z| < 4.5, a false alarm of 7e-6.
    target = truncated()
    sampler = random_sampler(target, MILD, control=control, grid=8)
    _, log_weight = sampler.sample(20_000, generator=generator, return_log_weights=True)
    assert 0.05 < log_weight.isneginf().double().mean() < 0.95
    assert sampler.counter.num_invalid == 0
    weight = (log_weight - target.log_z).exp()
    assert weight.var() < 5
    assert_mean(weight, 1.0, f"{control.__name__}: E[w] / Z")
    estimate = sampler.estimate_log_z(2000, seed=1)
    assert any("density zero" in warning for warning in estimate.warnings)
    assert -math.inf < estimate.elbo < estimate.log_z


@pytest.mark.parametrize("control", [FourierMLP, LangevinControl])
def test_bounds_stand_on_either_side(control: type, generator: torch.Generator) -> None:
    # n = 4000 each; both gaps exceed 4.5 standard errors, so that neither order is luck.
    target = correlated_gaussian()
    sampler = random_sampler(target, MILD, control=control, grid=10)
    with torch.no_grad():
        forward = evaluate(sampler.dynamics, rollout(sampler.dynamics, 4000, generator)).log_weight
        backward = evaluate(sampler.dynamics, sampler.rollback(target.sample(4000, generator), generator)).log_weight
    elbo, elbo_error = mean_and_error(forward)
    eubo, eubo_error = mean_and_error(backward)
    assert elbo + 4.5 * elbo_error < target.log_z < eubo - 4.5 * eubo_error, (elbo, eubo)


def test_weighted_draws_are_draws_of_the_target(generator: torch.Generator) -> None:
    # E[w x] = Z E[x]: n = 20000, two z-tests with |z| < 4.5.
    target = correlated_gaussian()
    sampler = random_sampler(target, MILD, grid=6)
    x, log_weight = sampler.sample(20_000, generator=generator, return_log_weights=True)
    weight = (log_weight - target.log_z).exp()
    for i, mean in enumerate((0.4, -0.3)):
        assert_mean(weight * (x[:, i] - mean), 0.0, f"coordinate {i}")


# --- one way to compute a weight


@pytest.mark.parametrize("grid", [1, 7, JitteredGrid(7)], ids=repr)
@pytest.mark.parametrize("control", [FourierMLP, LangevinControl])
def test_weighted_rollout_equals_rollout_and_evaluate(control: type, grid: object) -> None:
    sampler = random_sampler(two_modes(), control=control, grid=grid)
    x, log_weight = sampler.weighted_draws(9, new_generator())
    path = rollout(sampler.dynamics, 9, new_generator())
    assert torch.equal(x, path.x[-1]) and log_weight.dtype == torch.float64 and log_weight.std() > 0.01
    torch.testing.assert_close(log_weight, evaluate(sampler.dynamics, path).log_weight, atol=1e-11, rtol=0)


def test_evaluate_is_the_sum_of_kernels() -> None:
    sampler = random_sampler(two_modes(), grid=4)
    path = rollout(sampler.dynamics, 3, new_generator())
    trajectory, process = evaluate(sampler.dynamics, path), sampler.policy.process
    embedding, flow_embedding = sampler.policy.control.embed(path.times), sampler.policy.flow.embed(path.times)
    log_pf, log_pb, log_flow = [], [], []
    for k in range(4):
        s, t, x, y = path.times[k], path.times[k + 1], path.x[k], path.x[k + 1]
        control = sampler.policy.control(embedding[k], x, sampler.target.score(x))
        log_pf.append(process.forward_kernel(s, t, x, control).log_prob(y))
        log_pb.append(process.backward_kernel(s, t, y).log_prob(x))
        if k > 0:
            prior_side = sampler.policy.log_z + process.log_reference(s, x)
            interpolation = (1 - s) * prior_side + s * sampler.target.log_prob(x)
            log_flow.append(sampler.policy.flow(flow_embedding[k], x, interpolation))
    torch.testing.assert_close(trajectory.log_pf, torch.stack(log_pf))
    torch.testing.assert_close(trajectory.log_pb, torch.stack(log_pb))
    torch.testing.assert_close(trajectory.log_flow, torch.stack(log_flow))
    torch.testing.assert_close(trajectory.log_prob, sampler.target.log_prob(path.x[-1]))
    assert torch.equal(trajectory.log_prior, process.prior.log_prob(path.x[0]))


@pytest.mark.parametrize("rows", [1, 15, 31, 34])
@pytest.mark.parametrize("flow", [None, FourierFlow, ForwardLookingFlow])
def test_chunked_evaluate_equals_unchunked(flow: type | None, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # T = 7 steps of B = 5 trajectories: pieces of 1, 3, 6 and 6 steps, so of every kind of end.
    def densities() -> tuple[Trajectory, list[Tensor]]:
        trajectory = evaluate(sampler.dynamics, path)
        start, end = trajectory.balance_ends
        loss = (end - start).square().mean() if flow is None else SubTrajectoryBalance()(trajectory)
        return trajectory, torch.autograd.grad(loss, list(sampler.parameters()))

    sampler = random_sampler(flow=flow, grid=7)
    path = rollout(sampler.dynamics, 5, new_generator())
    whole, whole_gradients = densities()
    monkeypatch.setattr("diffsampler.paths.evaluation.CPU_CHUNK_ROWS", rows)
    forward, calls = sampler.policy.control.forward, []
    monkeypatch.setattr(sampler.policy.control, "forward", lambda *args: calls.append(args) or forward(*args))
    pieces, gradients = densities()
    assert len(calls) == math.ceil(7 / max(1, rows // 5))
    for name in FIELDS if flow else FIELDS[:5]:
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name), msg=name)
    torch.testing.assert_close(gradients, whole_gradients)


def test_log_weight_does_not_depend_on_flow_or_log_z() -> None:
    log_weights = []
    for flow in (None, FourierFlow, ForwardLookingFlow):
        torch.manual_seed(0)  # the control is made before the flow, so it is the same each time
        sampler = Sampler(two_modes(), flow=flow, grid=5)
        with torch.no_grad():
            for parameter in sampler.policy.flow.parameters() if flow else []:
                parameter += 0.3
            sampler.policy.log_z += 2.5
        trajectory = evaluate(sampler.dynamics, rollout(sampler.dynamics, 6, new_generator()))
        log_weights += [trajectory.log_weight, sampler.weighted_draws(6, new_generator())[1]]
    for log_weight in log_weights[1:]:
        torch.testing.assert_close(log_weight, log_weights[0], atol=1e-11, rtol=0)


def test_values_on_the_path_are_those_of_the_target() -> None:
    sampler = random_sampler(two_modes(), grid=5)
    path = rollout(sampler.dynamics, 6, new_generator())
    log_prob, score = sampler.target.log_prob_and_score(path.x)
    torch.testing.assert_close(path.log_prob, log_prob)
    torch.testing.assert_close(path.score, score)
    bare = evaluate(sampler.dynamics, Path(path.times, path.x))
    carried = evaluate(sampler.dynamics, path)
    for name in FIELDS:
        torch.testing.assert_close(getattr(bare, name), getattr(carried, name), msg=name)


def test_paths_carry_no_gradient_and_evaluation_does() -> None:
    sampler = random_sampler(grid=3)
    path = rollout(sampler.dynamics, 4, new_generator())
    assert not path.x.requires_grad and not path.log_prob.requires_grad and not path.score.requires_grad
    assert not sampler.rollback(torch.randn(4, 2)).x.requires_grad
    assert evaluate(sampler.dynamics, path).log_pf.requires_grad
    assert not sampler.sample(4, seed=0, return_log_weights=True)[1].requires_grad


# --- counts of target evaluations: T = 4, B = 3

COUNTS = [
    # control, flow, then the points evaluated by: rollout, evaluate, weighted rollout, evaluate after a rollback
    (FourierMLP, None, 0, 3, 3, 3),
    (FourierMLP, FourierFlow, 0, 3, 3, 3),
    (FourierMLP, ForwardLookingFlow, 0, 15, 3, 15),
    (LangevinControl, None, 15, 0, 15, 15),
    (LangevinControl, FourierFlow, 15, 0, 15, 15),
    (LangevinControl, ForwardLookingFlow, 15, 0, 15, 15),
]


@pytest.mark.parametrize(("control", "flow", "rolled_out", "after_rollout", "weighted", "after_rollback"), COUNTS)
def test_target_evaluations(
    control: type, flow: type | None, rolled_out: int, after_rollout: int, weighted: int, after_rollback: int
) -> None:
    target = CountingTarget(correlated_gaussian())
    sampler = Sampler(target, control=control, flow=flow, grid=4)

    def spent() -> int:
        count, target.count = target.count, 0
        return count

    path = rollout(sampler.dynamics, 3)
    assert spent() == rolled_out
    evaluate(sampler.dynamics, path)
    assert spent() == after_rollout
    sampler.weighted_draws(3)
    assert spent() == weighted
    path = sampler.rollback(torch.randn(3, 2))
    assert spent() == 0
    evaluate(sampler.dynamics, path)
    assert spent() == after_rollback
    so_far = rolled_out + after_rollout + weighted + after_rollback
    assert sampler.num_target_evaluations == so_far
    estimate = sampler.estimate_log_z(6)
    assert spent() == 2 * weighted
    assert estimate.num_target_evaluations == sampler.num_target_evaluations == so_far + 2 * weighted


NETWORK_COUNTS = [
    # process, then the states that networks are asked at by: rollout, evaluate, weighted rollout, rollback
    (PinnedBrownian, 12, 12, 12, 0),
    (Bridge, 12, 24, 24, 12),
]


@pytest.mark.parametrize(("process", "rolled_out", "evaluated", "weighted", "back"), NETWORK_COUNTS)
def test_network_evaluations(process: type, rolled_out: int, evaluated: int, weighted: int, back: int) -> None:
    sampler = Sampler(correlated_gaussian(), process, FourierMLP, grid=4)
    asked = 0

    def count(module: torch.nn.Module, args: tuple, output: Tensor) -> None:
        nonlocal asked
        asked += output[..., 0].numel()

    for control in (sampler.policy.control, sampler.policy.backward_control):
        if control is not None:
            control.register_forward_hook(count)
    path = rollout(sampler.dynamics, 3)
    assert sampler.num_network_evaluations == asked == rolled_out
    evaluate(sampler.dynamics, path)
    assert sampler.num_network_evaluations == asked == rolled_out + evaluated
    sampler.weighted_draws(3)
    assert sampler.num_network_evaluations == asked == rolled_out + evaluated + weighted
    sampler.rollback(torch.randn(3, 2))
    assert sampler.num_network_evaluations == asked == rolled_out + evaluated + weighted + back
    sampler.log_prob(torch.randn(3, 2))
    assert sampler.num_network_evaluations == asked > rolled_out + evaluated + weighted + back
    # What figures and metrics ask is no part of what a run costs.
    rollout(sampler.dynamics.uncounted(), 3)
    assert sampler.num_network_evaluations < asked


# --- sample and estimate


def test_seeds_decide() -> None:
    sampler = random_sampler(grid=3)
    first, log_weight = sampler.sample(20, seed=4, return_log_weights=True)
    again = sampler.sample(20, seed=4)
    assert torch.equal(first, again) and first.shape == (20, 2) and log_weight.shape == (20,)
    assert not torch.equal(first, sampler.sample(20, seed=5))
    assert torch.equal(first, sampler.sample(20, generator=new_generator(4)))
    torch.manual_seed(1)
    unseeded = sampler.sample(20)
    torch.manual_seed(1)
    assert torch.equal(unseeded, sampler.sample(20)) and not torch.equal(unseeded, sampler.sample(20))
    state = torch.get_rng_state()
    sampler.estimate_log_z(30, seed=2)
    assert torch.equal(torch.get_rng_state(), state), "a seeded call touched the global generator"


@pytest.mark.parametrize("grid", [3, JitteredGrid(3)], ids=repr)
def test_chunked_sampling_continues_one_stream(grid: object) -> None:
    sampler = random_sampler(grid=grid)
    x, log_weight = sampler.sample(10, seed=4, return_log_weights=True, batch_size=4)
    generator = new_generator(4)
    parts = [sampler.weighted_draws(n, generator) for n in (4, 4, 2)]
    assert torch.equal(x, torch.cat([part[0] for part in parts]))
    assert torch.equal(log_weight, torch.cat([part[1] for part in parts]))
    assert len(x.unique(dim=0)) == 10
    estimate = sampler.estimate_log_z(10, seed=4, batch_size=4)
    assert abs(estimate.log_z - float(log_weight.exp().mean().log())) < 1e-12


@pytest.mark.parametrize("n", [0, -3, 2.5, "10", True])
def test_refuses_bad_counts(n: object) -> None:
    sampler = Sampler(correlated_gaussian(), grid=2)
    with pytest.raises(InputError, match=r"\bnum_samples must"):
        sampler.sample(n)
    with pytest.raises(InputError, match="batch_size"):
        sampler.sample(5, batch_size=n)
    with pytest.raises(InputError, match="num_samples"):
        sampler.estimate_log_z(num_samples=n)


def test_refuses_other_bad_input() -> None:
    with pytest.raises(InputError, match="FunctionTarget"):
        Sampler(lambda x: -(x**2).sum(-1))
    with pytest.raises(InputError, match="num_steps"):
        Sampler(correlated_gaussian(), grid=0)
    with pytest.raises(InputError, match="compile must be True or False, got 'false'"):
        Sampler(correlated_gaussian(), compile="false")
    with pytest.raises(InputError, match="checkpoint_activations must be True or False, got 3"):
        Sampler(correlated_gaussian(), checkpoint_activations=3)
    with pytest.raises(InputError, match="seed or generator"):
        Sampler(correlated_gaussian(), grid=2).sample(3, seed=1, generator=new_generator())


def test_defaults_and_ready_parts() -> None:
    sampler = Sampler(correlated_gaussian(), control=LangevinControl)
    assert isinstance(sampler.policy.process, PinnedBrownian) and isinstance(sampler.policy.control, LangevinControl)
    assert (
        isinstance(sampler.policy.flow, ForwardLookingFlow)
        and sampler.grid.num_steps == 100
        and sampler.policy.dim == 2
    )
    assert sampler.coordinates is None and isinstance(sampler.recipe, Dgfs)
    control, flow, grid = ZeroControl(), FourierFlow(2), PowerGrid(5)
    sampler = Sampler(correlated_gaussian(), control=control, flow=flow, grid=grid)
    assert sampler.policy.control is control and sampler.policy.flow is flow and sampler.grid is grid


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_initialise_log_z(dtype: torch.dtype) -> None:
    sampler = random_sampler(grid=5).to(dtype)
    _, log_weight = sampler.weighted_draws(200, new_generator())
    sampler.policy.initialise_log_z(log_weight)
    # float64 whatever the dtype of states: a constant in log_prob is no matter of precision.
    assert sampler.policy.log_z.dtype == torch.float64 and sampler.dtype == dtype and sampler.policy.log_z.requires_grad
    assert abs(sampler.policy.log_z.item() - float(log_weight.exp().mean().log())) < 1e-6


def test_initialise_log_z_with_unusable_weights() -> None:
    sampler = random_sampler(truncated(), grid=5)
    _, log_weight = sampler.weighted_draws(200, new_generator())
    assert log_weight.isneginf().any()
    sampler.policy.initialise_log_z(log_weight)
    assert abs(sampler.policy.log_z.item() - float(log_weight.exp().mean().log())) < 1e-12
    nowhere = Sampler(FunctionTarget(lambda x: x.sum(-1) * 0 - math.inf, dim=2), control=FourierMLP, grid=2)
    nowhere.policy.initialise_log_z(torch.full((10,), -math.inf))
    assert nowhere.policy.log_z == 0
    with pytest.raises(InputError, match="10 have density zero"):
        nowhere.estimate_log_z(10)


def test_exploration_noise_leaves_the_mean() -> None:
    # Twice the same noise: the path of a constant control is its mean plus noise_scale times a Brownian path.
    sampler = Sampler(correlated_gaussian(), control=ConstantControl([0.5, -1.0]), flow=None, grid=4)
    narrow, wide = (rollout(sampler.dynamics, 5, new_generator(), noise_scale=scale).x for scale in (1.0, 3.0))
    mean = torch.linspace(0, 1, 5)[:, None, None] * torch.tensor([0.5, -1.0])
    torch.testing.assert_close(wide - mean, 3 * (narrow - mean))
    assert torch.equal(Exploration(2.0, 1.0).paths(sampler.dynamics, 5, new_generator(), progress=0.0).x, wide)


def test_state_dict_restores_the_sampler() -> None:
    first, second = random_sampler(two_modes(), grid=4), Sampler(two_modes(), grid=4)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.sample(5, seed=1), second.sample(5, seed=1))


@pytest.mark.parametrize("chunk", [6400, 20], ids=["in one piece", "in many"])
def test_activations_computed_twice_give_the_same_gradients(chunk, monkeypatch):
    monkeypatch.setattr("diffsampler.paths.evaluation.CPU_CHUNK_ROWS", chunk)
    (kept, gradient), (kept_twice, gradient_twice) = _activations_and_gradient(False), _activations_and_gradient(True)
    torch.testing.assert_close(gradient, gradient_twice, rtol=1e-10, atol=1e-12)
    assert kept_twice < 0.5 * kept


def test_large_batches_do_not_keep_their_activations(monkeypatch):
    assert _activations_and_gradient(None)[0] == _activations_and_gradient(False)[0]
    monkeypatch.setattr("diffsampler.paths.dynamics.MAX_KEPT_ROWS", 100)
    assert _activations_and_gradient(None)[0] == _activations_and_gradient(True)[0]


def _activations_and_gradient(checkpoint_activations: bool | None) -> tuple[int, torch.Tensor]:
    """How many numbers the graph of a step keeps, for 10 trajectories of 12 steps, and the step's gradient."""
    torch.manual_seed(0)
    sampler = Sampler(correlated_gaussian(), grid=12, checkpoint_activations=checkpoint_activations)
    path = rollout(sampler.dynamics, 10, new_generator())
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = SubTrajectoryBalance()(evaluate(sampler.dynamics, path))
    loss.backward()
    return sum(kept), torch.cat([p.grad.flatten() for p in sampler.parameters() if p.grad is not None])
