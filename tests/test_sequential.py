"""Sequential Monte Carlo along the flow: unbiased whatever the flow, perfect along the exact one."""

import math
from functools import partial

import pytest
import torch
from helpers import (
    MILD,
    PERIODIC_CONTROLS,
    PROCESSES,
    PROCESSES_OF_THEIR_OWN_KIND,
    ConstantControl,
    ExactFlow,
    ProcessCase,
    angle_and_real,
    assert_mean,
    by_name,
    centred_gaussian,
    correlated_gaussian,
    gated,
    periodic_forward_looking,
    random_sampler,
)

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.behaviours import Replay, SequentialMonteCarlo
from diffsampler.log_z import estimate_log_z
from diffsampler.log_z.resampling import resample_groups, systematic
from diffsampler.losses import ChunkBalance, SubTrajectoryBalance
from diffsampler.networks import ForwardLookingFlow, FourierFlow, FourierMLP
from diffsampler.paths import evaluate, resampled_rollout, sequential_rollout
from diffsampler.processes import AnnealedLangevin, PinnedBrownian
from targets import VonMisesMixture


def random_walk(case: ProcessCase, flow: object = ForwardLookingFlow, grid: int = 6) -> Sampler:
    """A sampler with this process whose networks, the flow among them, are random functions."""
    if case.name in ("Torus", "ProductProcess"):
        target = VonMisesMixture(2) if case.name == "Torus" else angle_and_real()
        parts = {"control": PERIODIC_CONTROLS[0], "flow": periodic_forward_looking}
        return random_sampler(target, MILD, process=case.build, grid=grid, **parts)
    control = gated if case.name == "Underdamped" else FourierMLP
    return random_sampler(correlated_gaussian(), MILD, process=case.build, control=control, flow=flow, grid=grid)


@pytest.mark.parametrize("case", [*PROCESSES, *PROCESSES_OF_THEIR_OWN_KIND], ids=by_name)
def test_is_unbiased_untrained(case: ProcessCase, device: torch.device, generator: torch.Generator) -> None:
    # Resampled at every step; 2500 independent groups of 8, |z| < 4.5, a false alarm of 7e-6. Group means with a
    # variance of order 1 are what lets the central limit theorem apply.
    sampler = random_walk(case).to(device)
    _, log_weight = sequential_rollout(sampler.dynamics, 20_000, 2500, 1.0, generator)
    weight = (log_weight - sampler.target.log_z).exp().view(2500, 8).mean(-1)
    assert 1e-4 < weight.var() < 5, f"{case.name}: {weight.var()}"
    assert_mean(weight, 1.0, f"{case.name}: E[Z estimate] / Z")


@pytest.mark.parametrize("flow", [FourierFlow, ForwardLookingFlow])
@pytest.mark.parametrize("control", [FourierMLP, gated])
def test_weighted_draws_are_draws_of_the_target(flow: type, control: object, generator: torch.Generator) -> None:
    # E[w (x - E x)] = 0 over 2500 groups: two z-tests with |z| < 4.5, and zero density on one side besides.
    whole = correlated_gaussian()
    cut = FunctionTarget(lambda x: torch.where(x[..., 1] > -2.5, whole.log_prob(x), -math.inf), dim=2)
    mean = torch.tensor([0.4, -0.3])
    weight_above = 0.5 * math.erfc((-2.5 + 0.3) / math.sqrt(2 * 0.6))
    sampler = random_sampler(cut, MILD, control=control, flow=flow, grid=6)
    x, log_weight = sequential_rollout(sampler.dynamics, 20_000, 2500, 0.7, generator)
    weight = (log_weight - whole.log_z).exp()
    assert_mean(weight.view(2500, 8).mean(-1), weight_above, "the mass that is left")
    inside = (x[:, 1] - mean[1]).abs() < 2.2
    for i in range(2):
        moment = (weight * inside * (x[:, i] - mean[i])).view(2500, 8).mean(-1)
        assert_mean(moment, 0.0, f"coordinate {i}")


def test_exact_flow_and_control_leave_nothing_to_weigh(generator: torch.Generator) -> None:
    # For exp(0.7) N(0, sigma^2) the uncontrolled process is exact and its marginals are the flows.
    sigma = torch.tensor([0.7, 1.6])
    process = PinnedBrownian(len(sigma), sigma.tolist())
    flow = ExactFlow(process.log_reference, 0.7)
    sampler = Sampler(centred_gaussian(sigma, 0.7), process, ConstantControl([0.0, 0.0]), flow, 9)
    _, log_weight = sequential_rollout(sampler.dynamics, 64, ess_threshold=0.9, generator=generator)
    torch.testing.assert_close(log_weight, torch.full_like(log_weight, 0.7), rtol=0, atol=1e-10)


def test_exact_flows_tame_a_wrong_control(generator: torch.Generator) -> None:
    # A control that is off by 0.8 in 4 coordinates makes weights of variance exp(4 0.8^2) - 1 = 12; resampled along the
    # exact flows a group of 50 should have a variance of about 4 0.8^2 / 50. Both are known to about 20 % from 400
    # groups (weights are log-normal), the true ratio is near 0.2: at 0.5 a false alarm is beyond 4 standard errors.
    sigma = torch.tensor([1.0, 1.0, 1.0, 1.0])
    process = PinnedBrownian(len(sigma), sigma.tolist())
    flow = ExactFlow(process.log_reference, 0.7)
    sampler = Sampler(centred_gaussian(sigma, 0.7), process, ConstantControl([0.8] * 4), flow, 20)
    variances = []
    for threshold in (0.0, 0.5):
        _, log_weight = sequential_rollout(sampler.dynamics, 20_000, 400, threshold, generator)
        variances.append(float((log_weight - 0.7).exp().view(400, 50).mean(-1).var()))
    assert variances[1] < 0.5 * variances[0], variances


def test_without_resampling_it_is_the_weighted_rollout() -> None:
    sampler = random_walk(PROCESSES[7])
    x, log_weight = sequential_rollout(sampler.dynamics, 16, 1, 0.0, torch.Generator().manual_seed(1))
    path = resampled_rollout(sampler.dynamics, 16, 0.0, torch.Generator().manual_seed(1))
    assert x.shape == (16, 2) and log_weight.shape == (16,)
    rows = torch.cdist(path.x[-1], x).argmin(-1)
    torch.testing.assert_close(path.x[-1], x[rows])
    with torch.no_grad():
        again = evaluate(sampler.dynamics, path).log_weight
    torch.testing.assert_close(again, log_weight[rows], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", PROCESSES[:8:7], ids=by_name)
def test_paths_are_lineages(case: ProcessCase, generator: torch.Generator) -> None:
    # A step from the state of another trajectory would be many standard deviations long: here a step has 0.03 of the
    # spread. 1000 x 256 squared residuals of two coordinates: P(any > 45) = 256 000 exp(-22.5) = 4e-5.
    sampler = random_walk(case, grid=1000)
    path = resampled_rollout(sampler.dynamics, 256, 1.0, generator)
    with torch.no_grad():
        trajectory = evaluate(sampler.dynamics, path)
    s, t = path.times[:-1, None, None], path.times[1:, None, None]
    # log N(y; mean, std^2) = -r^2 / 2 - log normaliser: what is left is the residual.
    std = sampler.policy.process.forward_kernel(s, t, path.x[:-1], torch.zeros_like(path.x[:-1]), path.x[:-1]).std
    log_normaliser = (std.log() + 0.5 * math.log(2 * math.pi)).expand(-1, 1, 2).sum(-1)
    squared = -2 * (trajectory.log_pf + log_normaliser).detach()
    assert squared.max() < 45 and abs(float(squared.mean()) - 2) < 0.2
    if path.log_prob is not None:
        torch.testing.assert_close(path.log_prob, sampler.counter.log_prob(path.x))


def test_resampling_keeps_group_means(generator: torch.Generator) -> None:
    log_weight = torch.randn(40, generator=generator).double() * torch.tensor([0.01, 3.0]).repeat_interleave(20)
    rows, kept = resample_groups(log_weight, 2, 0.5, generator)
    groups = (values.view(2, 20).logsumexp(-1) for values in (log_weight, kept))
    torch.testing.assert_close(*groups)
    assert torch.equal(rows[:20], torch.arange(20)) and torch.equal(kept[:20], log_weight[:20])
    assert (rows[20:] >= 20).all() and (kept[20:] == kept[20]).all() and len(rows[20:].unique()) < 20


def test_systematic_draws_as_often_as_it_should(generator: torch.Generator) -> None:
    weight = torch.tensor([[0.5, 0.25, 0.0, 0.25], [0.05, 0.05, 0.45, 0.45]]).double()
    rows = systematic(weight.log(), 20, generator)
    counts = torch.stack([row.bincount(minlength=4) for row in rows])
    assert (counts - 20 * weight).abs().max() < 1


def test_estimate(generator: torch.Generator) -> None:
    # A 4.5 sigma interval (a false alarm of 7e-6); counts are those of a rollout, no more.
    target = correlated_gaussian()
    sampler = Sampler(target, partial(AnnealedLangevin, sigma=2.0), FourierMLP, grid=16)
    untouched = sampler.estimate_log_z(100, seed=3, method="smc")
    assert any("no loss has trained it" in warning for warning in untouched.warnings) and untouched.high == math.inf
    with torch.no_grad():  # as if something had trained it
        sampler.policy.flow.network.perceptron.output.bias.add_(1e-9)
    before = sampler.num_target_evaluations
    estimate = sampler.estimate_log_z(4990, seed=3, batch_size=2000, method="smc")
    assert estimate.num_samples == 5000  # fifty groups of 100, twenty at a time
    assert sampler.num_target_evaluations - before == 5000 * 17
    assert not any("no loss has trained it" in warning for warning in estimate.warnings)
    assert abs(estimate.log_z - target.log_z) < 4.5 / 1.96 * (estimate.high - estimate.log_z)
    assert estimate.elbo <= estimate.log_z and 0 < estimate.ess <= 1.5 and not math.isnan(estimate.khat)
    assert sampler.estimate_log_z(4990, seed=3, batch_size=2000, method="smc").log_z == estimate.log_z


@pytest.mark.slow
def test_few_draws_are_still_resampled_and_no_more_than_asked_for() -> None:
    sampler = Sampler(correlated_gaussian(), partial(AnnealedLangevin, sigma=2.0), FourierMLP, grid=4)
    for n, batch_size, expected in ((100, 1, 100), (1000, 7, 1000), (30, 10_000, 40), (10_000, 50, 10_000)):
        assert sampler.estimate_log_z(n, seed=0, batch_size=batch_size, method="smc").num_samples == expected


@pytest.mark.parametrize("control", [FourierMLP, gated])
def test_what_is_no_number_counts_as_zero(control: object) -> None:
    # The same draws, the same weights, whether the density is NaN, +inf or zero on one side.
    whole, estimates = correlated_gaussian(), []
    for value in (math.nan, math.inf, -math.inf):
        cut = FunctionTarget(lambda x, value=value: torch.where(x[..., 0] < 1.2, whole.log_prob(x), value), dim=2)
        sampler = random_sampler(cut, MILD, control=control, grid=6)
        estimates.append(sampler.estimate_log_z(2000, seed=1, method="smc"))
    assert estimates[0].log_z == estimates[1].log_z == estimates[2].log_z
    assert estimates[0].ess > 0.01 and "NaN" in estimates[0].warnings[0]


def test_estimate_from_groups_counts_draws() -> None:
    log_weight = torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    plain, grouped = estimate_log_z(log_weight), estimate_log_z(log_weight, draws_per_weight=30)
    assert (grouped.log_z, grouped.low, grouped.high) == (plain.log_z, plain.low, plain.high)
    assert grouped.num_samples == 3000 and 1 / grouped.ess > 1 / plain.ess
    zero = torch.cat([torch.full((100,), -math.inf), log_weight])
    assert "100 of 200 groups of 30 samples have density zero." in estimate_log_z(zero, draws_per_weight=30).warnings


def test_refuses_in_words() -> None:
    sampler = Sampler(correlated_gaussian(), flow=None, grid=4)
    with pytest.raises(InputError, match=r"flow=None\. Use method='importance'"):
        sampler.estimate_log_z(method="smc")
    with pytest.raises(InputError, match="method must be one of importance, smc, ode, got 'SMC'"):
        sampler.estimate_log_z(method="SMC")
    with pytest.raises(InputError, match="SequentialMonteCarlo goes along the flow.*OnPolicy"):
        SequentialMonteCarlo().check(sampler.dynamics)
    with pytest.raises(InputError, match="ess_threshold must be at most 1, got 1.5"):
        SequentialMonteCarlo(1.5)
    with pytest.raises(InputError, match="n must be a multiple of num_groups, got 10 and 3"):
        sequential_rollout(Sampler(correlated_gaussian(), grid=4).dynamics, 10, 3)
    with pytest.raises(InputError, match="flow=None"):
        resampled_rollout(sampler.dynamics, 10)


@pytest.mark.parametrize("loss", [ChunkBalance(4), SubTrajectoryBalance()], ids=lambda loss: type(loss).__name__)
def test_trains(loss: object) -> None:
    sampler = Sampler(correlated_gaussian(), partial(AnnealedLangevin, sigma=1.0), FourierMLP, grid=8)
    history = fit(sampler, max_steps=20, steps_per_epoch=10, loss=loss, behaviour=Replay(SequentialMonteCarlo(0.9)))
    assert len(history) == 2 and math.isfinite(history[-1]["elbo"])
