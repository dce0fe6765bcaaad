"""One battery for all processes, over the list in helpers.py."""

import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from helpers import (
    MILD,
    PROCESSES,
    WIDE,
    ConstantControl,
    ProcessCase,
    assert_mean,
    by_name,
    centred_gaussian,
    correlated_gaussian,
    random_sampler,
    randomise,
)
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.losses import TrajectoryBalance
from diffsampler.networks import FourierFlow, FourierMLP, GaussianBridgeMLP, LearnedVariance
from diffsampler.paths import evaluate, rollout
from diffsampler.priors import GaussianPrior
from diffsampler.processes import (
    AnnealedLangevin,
    Bridge,
    LinearSchedule,
    PinnedBrownian,
    Process,
    VarianceExploding,
    VariancePreserving,
)

every_process = pytest.mark.parametrize("case", PROCESSES, ids=by_name)


@pytest.fixture
def times() -> Tensor:
    return torch.tensor([0.0, 0.15, 0.4, 1.0], dtype=torch.float64)


@every_process
def test_prior_samples(case: ProcessCase, device: torch.device, generator: torch.Generator) -> None:
    process = case.make().to(device)
    for dtype in (torch.float32, torch.float64):
        x = process.prior.sample(5, generator, dtype, device)
        assert x.shape == (5, 2) and x.dtype == dtype and x.device.type == device.type, case.name
        log_prior = process.prior.log_prob(x)
        assert log_prior.shape == (5,) and log_prior.isfinite().all(), case.name


@every_process
def test_kernels_broadcast_over_times(case: ProcessCase, times: Tensor, generator: torch.Generator) -> None:
    process = case.make()
    randomise(process)
    x, y, u, v = (torch.randn(3, 4, 2, generator=generator) for _ in range(4))
    s, t = times[:-1], times[1:]
    # At time 0 a Dirac prior knows one state only.
    x[0] = process.prior.sample(4, generator, torch.float64).detach()
    batched = (
        process.forward_kernel(s[:, None, None], t[:, None, None], x, u, -x).log_prob(y),
        process.backward_kernel(s[:, None, None], t[:, None, None], y, v, -y).log_prob(x),
        process.log_reference(t[:, None, None], y),
    )
    for k in range(3):
        single = (
            process.forward_kernel(s[k], t[k], x[k], u[k], -x[k]).log_prob(y[k]),
            process.backward_kernel(s[k], t[k], y[k], v[k], -y[k]).log_prob(x[k]),
            process.log_reference(t[k], y[k]),
        )
        for whole, part in zip(batched, single, strict=True):
            assert part.shape == (4,)
            torch.testing.assert_close(whole[k], part, msg=f"{case.name} at step {k}")


@every_process
def test_uncontrolled_process_is_balanced(case: ProcessCase, times: Tensor, generator: torch.Generator) -> None:
    if not case.reversible:
        pytest.skip("its backward kernel is no exact time reversal")
    process = case.make()
    x, y = torch.randn(2, 50, 2, generator=generator)
    for k in range(3):
        s, t = times[k], times[k + 1]
        start = process.prior.sample(50, generator, torch.float64) if k == 0 else x
        log_start = process.prior.log_prob(start) if k == 0 else process.log_reference(s, start)
        forward = process.forward_kernel(s, t, start, torch.zeros_like(start)).log_prob(y) + log_start
        backward = process.backward_kernel(s, t, y).log_prob(start) + process.log_reference(t, y)
        torch.testing.assert_close(forward, backward, msg=f"{case.name} at step {k}")


@every_process
def test_reference_integrates_to_one(case: ProcessCase) -> None:
    # The trapezoidal rule is exact to rounding for a Gaussian with steps below half a standard deviation.
    line = torch.arange(-24, 24, 0.2)
    points = torch.cartesian_prod(line, line)
    for t in (0.3, 1.0):
        total = case.make().log_reference(torch.tensor(t), points).exp().sum() * 0.2**2
        assert abs(total - 1) < 1e-8, f"{case.name} at t = {t} integrates to {total}"


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@every_process
def test_weights_are_unbiased_untrained(
    case: ProcessCase, num_steps: int, device: torch.device, generator: torch.Generator
) -> None:
    # n = 20000 weights of a random network; |z| < 4.5, a false alarm of 7e-6. Their variance of order 1 is what lets
    # the central limit theorem apply.
    target = correlated_gaussian()
    sampler = random_sampler(target, MILD, process=case.make(), control=FourierMLP, flow=None, grid=num_steps)
    log_weight = sampler.to(device).weighted_draws(20_000, generator)[1]
    weight = (log_weight - target.log_z).exp()
    assert 0.01 < weight.var() < 5, f"{case.name}: {weight.var()}"
    assert_mean(weight, 1.0, f"{case.name}, T = {num_steps}: E[w] / Z")


@every_process
def test_rolled_back_weights_are_unbiased_untrained(case: ProcessCase, generator: torch.Generator) -> None:
    # E[1 / w] = 1 / Z over exact samples rolled back; n = 20000, |z| < 4.5, a false alarm of 7e-6. The target is wide
    # enough for 1 / w to have a small variance.
    target = correlated_gaussian(covariance=WIDE)
    controls = {"control": ConstantControl([0.2, -0.1])}
    if case.make().learns_backward:
        controls["backward_control"] = ConstantControl([-0.1, 0.3])
    sampler = Sampler(target, process=case.make(), **controls, flow=None, grid=6)
    path = sampler.rollback(target.sample(20_000, generator), generator)
    with torch.no_grad():
        log_weight = evaluate(sampler.dynamics, path).log_weight
    weight = (target.log_z - log_weight).exp()
    assert 0.01 < weight.var() < 5, f"{case.name}: {weight.var()}"
    assert_mean(weight, 1.0, f"{case.name}: E[Z / w]")


@pytest.mark.slow
@pytest.mark.parametrize(
    "process",
    [
        PinnedBrownian(2, [1.1, 1.6]),
        VariancePreserving(2, 1.3),
        pytest.param(VariancePreserving(2, [1.1, 1.6], LinearSchedule()), marks=pytest.mark.slow),
        VarianceExploding(2, [1.1, 1.6], noise_max=30.0),
        pytest.param(VarianceExploding(2, 1.3, noise_max=30.0), marks=pytest.mark.slow),
    ],
    ids=lambda process: f"{type(process).__name__}-{process.scale.numel()}",
)
def test_gaussian_control_ends_in_a_wider_gaussian(process: Process, generator: torch.Generator) -> None:
    """Under the control that a process knows for N(0, v scale^2), Var[log w] falls as the step does."""
    variance = torch.tensor([0.3, 2.0])
    target = centred_gaussian(process.scale * variance.sqrt())
    variances = []
    for num_steps in (50, 200):
        sampler = Sampler(target, deepcopy(process), GaussianBridgeMLP, flow=None, grid=num_steps)
        with torch.no_grad():
            sampler.policy.control.log_variance.output.bias.copy_(10 * torch.atanh(variance.log() / 10))
        variances.append(sampler.weighted_draws(4000, generator)[1].var())
    # Var[log w] is of order 1 / T, known to 5 % from 4000 draws: the ratio is 4 up to the next order in 1 / T.
    assert variances[1] < 0.03 and 2.5 < variances[0] / variances[1] < 8, variances


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_process
def test_shapes_and_dtypes(
    case: ProcessCase,
    dtype: torch.dtype,
    num_steps: int,
    batch: int,
    device: torch.device,
    generator: torch.Generator,
) -> None:
    sampler = random_sampler(process=case.make(), grid=num_steps).to(device, dtype)
    path = rollout(sampler.dynamics, batch, generator)
    assert path.x.shape == (num_steps + 1, batch, 2) and path.x.dtype == dtype, case.name
    end = torch.randn(batch, 2, generator=generator, device=device, dtype=dtype)
    rolled_back = sampler.rollback(end, generator)
    assert torch.equal(rolled_back.x[-1], end), case.name
    for states in (path, rolled_back):
        trajectory = evaluate(sampler.dynamics, states)
        assert trajectory.u.shape == (num_steps + 1, batch), case.name
        for name in ("log_pf", "log_pb", "log_prior", "log_prob", "log_flow", "u", "log_weight"):
            value = getattr(trajectory, name)
            assert value.dtype == torch.float64 and value.isfinite().all(), f"{case.name}: {name}"


@every_process
def test_single_precision_agrees_with_double(case: ProcessCase, generator: torch.Generator) -> None:
    sampler = random_sampler(process=case.make(), grid=20)
    path = rollout(sampler.dynamics, 8, generator)
    double = evaluate(sampler.dynamics, path).log_weight
    sampler.float()
    single = evaluate(sampler.dynamics, type(path)(path.times, path.x.float())).log_weight
    # 20 steps whose log-densities are rounded to about 1e-6 each, and relative to what they are.
    torch.testing.assert_close(single, double, atol=2e-4, rtol=1e-6, msg=case.name)


@every_process
def test_gradient_reaches_every_parameter(case: ProcessCase, generator: torch.Generator) -> None:
    sampler = random_sampler(process=case.make(), flow=None, grid=3)
    TrajectoryBalance()(evaluate(sampler.dynamics, rollout(sampler.dynamics, 16, generator))).backward()
    for name, parameter in sampler.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{case.name}: {name}"
        assert parameter.grad.abs().max() > 0, f"{case.name}: {name}"


# --- PinnedBrownian


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf"), "1", [1.0, 0.0], [1.0, "2"], None])
def test_refuses_bad_sigma(sigma: object) -> None:
    with pytest.raises(InputError, match="sigma"):
        PinnedBrownian(2, sigma)


@pytest.mark.parametrize("sigma", [[], [1.0, 1.0, 2.0]])
def test_refuses_sigma_of_another_dimension(sigma: list[float]) -> None:
    with pytest.raises(InputError, match="sigma"):
        Sampler(correlated_gaussian(), process=partial(PinnedBrownian, sigma=sigma), grid=3).sample(4)


def test_pinned_brownian_by_hand() -> None:
    process = PinnedBrownian(2, [2.0, 0.5])
    s, t = torch.tensor(0.2), torch.tensor(0.5)
    x, u = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.3, 0.7]])
    forward = process.forward_kernel(s, t, x, u)
    torch.testing.assert_close(forward.mean, torch.tensor([[1 + 2 * 0.3 * 0.3, -2 + 0.5 * 0.7 * 0.3]]))
    torch.testing.assert_close(forward.std, torch.tensor([2.0, 0.5]) * 0.3**0.5)
    backward = process.backward_kernel(s, t, x)
    torch.testing.assert_close(backward.mean, torch.tensor([[0.4, -0.8]]))
    torch.testing.assert_close(backward.std, torch.tensor([2.0, 0.5]) * (0.3 * 0.4) ** 0.5)
    assert process.backward_kernel(0 * s, t, x).std.abs().max() == 0


def test_rollback_is_the_brownian_bridge(generator: torch.Generator) -> None:
    # n = 20000 bridges from 0 to y: means t y, covariances sigma^2 s (1 - t) for s <= t. 4 means and 10 covariances in
    # each of 2 coordinates, 28 figures; |z| < 5 gives a false alarm of 2e-5 at most.
    sigma, y, n = torch.tensor([0.9, 1.6]), torch.tensor([1.4, -0.6]), 20_000
    sampler = Sampler(correlated_gaussian(), process=partial(PinnedBrownian, sigma=sigma.tolist()), grid=5)
    path = sampler.rollback(y.expand(n, 2), generator)
    assert torch.equal(path.x[0], torch.zeros(n, 2)) and torch.equal(path.x[-1], y.expand(n, 2))
    for k in range(1, 5):
        residual = path.x[k] - path.times[k] * y
        error = residual.std(0) / n**0.5
        assert (residual.mean(0).abs() < 5 * error).all(), f"mean at step {k}"
        for j in range(1, k + 1):
            product = residual * (path.x[j] - path.times[j] * y)
            expected = sigma**2 * path.times[j] * (1 - path.times[k])
            error = product.std(0) / n**0.5
            assert ((product.mean(0) - expected).abs() < 5 * error).all(), f"covariance of steps {j} and {k}"


def test_annealed_langevin_by_hand() -> None:
    process = AnnealedLangevin(2, [2.0, 0.5], GaussianPrior(2, 0.5, 2.0), clip=3.0)
    with torch.no_grad():
        process.log_factor.copy_(torch.linspace(0.0, 1.0, len(process.log_factor))[:, None])
    s, t = torch.tensor(0.2), torch.tensor(0.5)
    x, u, score = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.3, 0.7]]), torch.tensor([[2.0, -40.0]])
    sigma = torch.tensor([2.0, 0.5]) * math.exp(0.35)  # both kernels take the step size of the middle, 0.35
    prior_score, tamed = (0.5 - x) / 4, torch.tensor([[2.0, -3.0]])
    forward = process.forward_kernel(s, t, x, u, score)
    control = 0.5 * sigma**2 * (0.8 * prior_score + 0.2 * tamed) + sigma * u
    torch.testing.assert_close(forward.mean, x + 0.3 * control)
    torch.testing.assert_close(forward.std, sigma * 0.3**0.5)
    backward = process.backward_kernel(s, t, x, u, score)
    control = 0.5 * sigma**2 * (0.5 * prior_score + 0.5 * tamed) - sigma * u
    torch.testing.assert_close(backward.mean, x + 0.3 * control)
    torch.testing.assert_close(backward.std, sigma * 0.3**0.5)


@pytest.mark.parametrize("part", ["process", "control", "flow"])
def test_a_part_of_one_sampler_is_no_part_of_another(part: str) -> None:
    ready = {"process": Bridge(2), "control": FourierMLP(2), "flow": FourierFlow(2)}[part]
    parts = {"process": Bridge, "control": FourierMLP, "flow": FourierFlow, "backward_control": FourierMLP, part: ready}
    first = Sampler(correlated_gaussian(), grid=3, **parts)
    randomise(first)
    with pytest.raises(InputError, match=rf"{part} {type(ready).__name__} is part of another.*deepcopy\({part}\)"):
        Sampler(correlated_gaussian(), grid=6, **parts)
    second = Sampler(correlated_gaussian(), grid=6, **{**parts, part: deepcopy(ready)})
    for old, new in zip(ready.parameters(), getattr(second.policy, part).parameters(), strict=True):
        assert old is not new and torch.equal(old, new)
    del first
    assert Sampler(correlated_gaussian(), grid=6, **parts).sample(3).shape == (3, 2)


def test_single_precision_does_not_shift_log_weights(generator: torch.Generator) -> None:
    # D = 64, T = 100: rounding moves single weights, but their mean by less than 3e-4 nats.
    target = FunctionTarget(lambda x: -0.5 * (x - 0.1).square().sum(-1), dim=64)
    for control in (FourierMLP, lambda dim: LearnedVariance(dim, FourierMLP)):
        sampler = random_sampler(
            target, 0.02, process=partial(PinnedBrownian, sigma=1.1), control=control, flow=None, grid=100
        )
        path = rollout(sampler.dynamics, 64, generator)
        path = type(path)(path.times, path.x.float().double())
        double = evaluate(sampler.dynamics, path).log_weight
        single = evaluate(sampler.float().dynamics, type(path)(path.times, path.x.float())).log_weight
        assert (single - double).mean().abs() < 3e-4
