"""Losses to end points: the gradient of maximum likelihood in expectation, with less noise, a network call each."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import Z_BOUND, CountingTarget, assert_mean, correlated_gaussian, random_sampler, seeded
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target, fit
from diffsampler.behaviours import Alternation, Behaviour, ExpertSamples, Mixture, OnPolicy, Succession
from diffsampler.losses import AdjointMatching, Matching, MaximumLikelihood, Objective
from diffsampler.networks import Control, FourierMLP, LangevinControl, LearnedVariance
from diffsampler.paths import Path
from diffsampler.processes import (
    AnnealedLangevin,
    Bridge,
    PinnedBrownian,
    Process,
    ProductProcess,
    Torus,
    Underdamped,
    VarianceExploding,
    VariancePreserving,
)
from diffsampler.spaces import Circle, Euclidean, Product
from targets import Gaussian, VonMisesMixture

PROCESSES = {
    "VariancePreserving": partial(VariancePreserving, sigma=1.3),
    "VariancePreserving, a scale each": partial(VariancePreserving, sigma=[0.8, 1.6]),
    "PinnedBrownian": partial(PinnedBrownian, sigma=1.4),
}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def angle_and_reals() -> Target:
    """An angle with a von Mises density around pi, and a real N(sin(angle), 0.6^2)."""

    def log_prob(x: Tensor) -> Tensor:
        angle, a = x.unbind(-1)
        return -3 * angle.cos() - 0.5 * ((a - angle.sin()) / 0.6) ** 2

    def sample(n: int, generator: torch.Generator | None = None) -> Tensor:
        # By rejection from the uniform density; a quarter is kept.
        device = None if generator is None else generator.device
        u = torch.rand(8 * n + 64, 2, generator=generator, device=device)
        angle = (2 * u[:, 0] - 1) * math.pi
        angle = angle[u[:, 1] < (-3 * (angle.cos() + 1)).exp()][:n]
        return torch.stack([angle, angle.sin() + 0.6 * torch.randn(n, generator=generator, device=device)], -1)

    target = FunctionTarget(log_prob, 2, space=Product([Circle(1), Euclidean(1)]))
    target.sample = sample
    return target


# Steps whose width is a fifth of a half turn or less: what goes around in one of them is 1e-7 of all.
CASES = {name: (correlated_gaussian, process, 5) for name, process in PROCESSES.items()}
CASES["PinnedBrownian, half of them the first"] = (correlated_gaussian, PROCESSES["PinnedBrownian"], 2)
REALS = list(PROCESSES)
CASES["Torus"] = (partial(VonMisesMixture, 2, locations=[0.8], concentrations=[6.0], weights=[1.0]), Torus, 12)
CASES["ProductProcess"] = (angle_and_reals, ProductProcess, 12)
NUM_DRAWS = 150


def gradients(loss: Objective, sampler: Sampler, num_draws: int = NUM_DRAWS, seed: int = 5) -> Tensor:
    """Of the control's output layers, by independent steps of a loss, with shape (draws, parameters)."""
    generator = seeded(seed)
    layers = [value for name, value in sampler.policy.control.named_parameters() if "output" in name]
    loss.adapt(sampler.dynamics)
    found = []
    for _ in range(num_draws):
        step = loss.step(sampler.dynamics, ExpertSamples(), 32, generator, 0.0)
        found.append(torch.cat([one.flatten() for one in torch.autograd.grad(step, layers)]))
    return torch.stack(found)


def small(process: Callable[[int], Process], target: Target | None = None, **options: object) -> Sampler:
    network = partial(LearnedVariance, network=partial(FourierMLP, width=4, depth=1), width=4)
    options = {"control": network, "flow": None, "grid": 5, **options}
    return random_sampler(target or correlated_gaussian(), process=process, **options)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *((name, Matching) for name in CASES),
        *((name, partial(Matching, use_score=False)) for name in [*REALS, "Torus"]),
        *((name, AdjointMatching) for name in [*REALS, "PinnedBrownian, half of them the first"]),
    ],
)
def test_the_gradient_has_the_mean_of_maximum_likelihood(name: str, make: Callable[[int], Objective]) -> None:
    # Of means and widths. Steps of matching share the running variances, but given those each is unbiased. Fifty
    # differences of means of 150 draws, each beyond 5 standard errors with a chance of 6e-7: 3e-5.
    target, process, num_steps = CASES[name]
    sampler = small(process, target(), grid=num_steps, scale=0.15 if name in PROCESSES else 0.4)
    one, other = (gradients(loss, sampler) for loss in (make(64), MaximumLikelihood(64)))
    error = ((one.var(0) + other.var(0)) / NUM_DRAWS).sqrt()
    assert one.isfinite().all() and ((one.mean(0) - other.mean(0)).abs() < 5 * error).all()
    # Enough to tell: the mean is many of its errors for most parameters.
    assert (other.mean(0).abs() > 10 * error).double().mean() > 0.3


MEAN, VARIANCE, NUM_STEPS = [2.1, -1.2], 0.6, 12


class Exact(Control):
    """The mean of every step to a target N(MEAN, VARIANCE), in closed form, and parameters that leave it."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process_of = lambda: process  # no submodule
        self.output = torch.nn.Linear(2, 2)
        torch.nn.init.zeros_(self.output.weight)
        torch.nn.init.zeros_(self.output.bias)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        process, s, t = self.process_of(), embedding, embedding + 1 / NUM_STEPS
        signal, std = process.marginal(t)
        back = process.backward_kernel(s, t, torch.ones_like(x))
        mean, variance = signal * torch.tensor(MEAN), signal.square() * VARIANCE + std.square()
        # Of y = x_t, given x = x_s ~ N(decay y, back.std^2).
        gain = (variance * back.mean / (back.mean.square() * variance + back.std.square())).nan_to_num(0.0)
        wanted = mean + gain * (x - back.mean * mean)
        without, unit = (process.forward_kernel(s, t, x, u * torch.ones_like(x)).mean for u in (0.0, 1.0))
        return (wanted - without) / (unit - without) + self.output(x)


@pytest.mark.parametrize("process", [partial(VariancePreserving, sigma=1.2), partial(PinnedBrownian, sigma=1.4)])
def test_of_a_normal_target_scores_leave_no_noise_at_all(process: Callable[[int], Process]) -> None:
    # An end point and what its score says are off by multiples of one number, once running means know of which: the
    # first step. What is left is rounding, where denoising alone and maximum likelihood have noise of mean 0.
    sampler = Sampler(Gaussian(MEAN, VARIANCE), process, Exact, None, NUM_STEPS)
    denoised, likely = (
        gradients(loss, sampler, 60) for loss in (Matching(128, use_score=False), MaximumLikelihood(128))
    )
    mixed = gradients(Matching(128), sampler, 10)[1:]
    # From the origin there is no score to speak of: that first step shows in the two biases alone.
    mixed = mixed[:, :4] if process.func is PinnedBrownian else mixed
    assert mixed.abs().max() < 1e-9 < 1e-3 < denoised.std(0).min()
    # Six figures each beyond 5.5 standard errors of 60 draws, by Student's t: 1e-5.
    for noisy in (denoised, likely):
        assert (noisy.mean(0).abs() < 5.5 * noisy.std(0) / 60**0.5).all()


def test_shares_are_of_the_score_near_the_target_and_of_the_end_point_far_from_it() -> None:
    sampler = small(PROCESSES["VariancePreserving"], grid=16)
    loss = Matching(1024)
    gradients(loss, sampler, 40)
    share = loss.products / loss.squares
    # For a target of variance v the best is 1 / (1 + std^2 / (signal^2 v)): from nothing to nearly one.
    signal, std = sampler.policy.process.marginal(torch.arange(16).double()[:, None] / 16)
    expected = [(1 / (1 + std.square() / (signal.square() * v))).squeeze() for v in (0.4, 1.1)]
    assert (share > expected[0] - 0.15).all() and (share < expected[1] + 0.15).all()
    assert share[0] < 0.05 and share[-1] > 0.9


def test_it_costs_one_evaluation_an_end_point_or_none() -> None:
    for use_score, expected in ((True, 32), (False, 0)):
        target = CountingTarget(correlated_gaussian())
        target.sample = target.target.sample
        sampler = random_sampler(target, process=VariancePreserving, control=FourierMLP, flow=None, grid=5)
        loss = Matching(64, use_score)
        loss.adapt(sampler.dynamics)
        loss.step(sampler.dynamics, ExpertSamples(), 32, seeded(0), 0.0)
        assert target.count == sampler.num_target_evaluations == expected
        assert sampler.network_counter.num_evaluations == 64


def test_scores_that_are_no_number_are_left_out() -> None:
    def in_half(broken: float) -> Target:
        gaussian = Gaussian([0.4, -0.3], 0.5)

        class Half(FunctionTarget):
            def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
                log_prob, score = gaussian.log_prob_and_score(x)
                return log_prob, torch.where(x[..., :1] > 0.4, broken, score)

        target = Half(gaussian.log_prob, 2)
        target.sample = gaussian.sample
        return target

    for broken in (math.nan, math.inf, 1e25):
        for process in PROCESSES.values():
            sampler = random_sampler(in_half(broken), process=process, control=FourierMLP, flow=None, grid=5)
            loss = Matching(64)
            found = gradients(loss, sampler.float(), 3)
            assert loss.squares.isfinite().all() and loss.products.isfinite().all()
            if broken != 1e25:
                assert found.isfinite().all() and found.abs().max() > 0
                assert sampler.counter.num_invalid > 0


@pytest.mark.parametrize(
    ("process", "control"),
    [(VariancePreserving, LangevinControl), (PinnedBrownian, partial(LearnedVariance, network=LangevinControl))],
    ids=["VariancePreserving", "PinnedBrownian, widths"],
)
def test_it_trains_with_a_control_that_takes_the_score(process: Callable[[int], Process], control: object) -> None:
    sampler = Sampler(Gaussian([0.6, -0.4], [[0.5, 0.2], [0.2, 0.4]]), process, control, None, 16)
    before = sampler.estimate_log_z(2000, seed=1)
    options = {"batch_size": 64, "steps_per_epoch": 60, "num_eval_samples": 100, "enable_progress_bar": False}
    fit(sampler, max_steps=60, lr=5e-3, loss=Matching(256), behaviour=ExpertSamples(), accelerator="cpu", **options)
    after = sampler.estimate_log_z(2000, seed=1)
    assert after.ess > min(2 * before.ess, 0.8) and abs(after.log_z) < Z_BOUND * (after.high - after.low) / 3.92


def test_weights_are_unbiased_whatever_it_has_learned() -> None:
    sampler = small(PROCESSES["PinnedBrownian"])
    log_weight = sampler.sample(5000, seed=2, return_log_weights=True)[1]
    assert_mean((log_weight - 0.8).exp(), 1.0, "E[w] / Z, 7e-6")


@pytest.mark.parametrize(
    "process", [VarianceExploding, AnnealedLangevin, Bridge, Underdamped], ids=lambda process: process.__name__
)
def test_refuses_processes_without_a_marginal(process: Callable[[int], Process]) -> None:
    sampler = Sampler(correlated_gaussian(), process, FourierMLP, None, 5)
    with pytest.raises(InputError, match=f"loss Matching needs a process .* which {process.__name__} has not. Use Var"):
        Matching().check(sampler.dynamics, ExpertSamples())


def test_refuses_what_it_cannot_work_with() -> None:
    mixed = Sampler(
        angle_and_reals(), partial(ProductProcess, reals=partial(VarianceExploding, noise_max=4.0)), FourierMLP, None, 5
    )
    with pytest.raises(InputError, match="which ProductProcess has not"):
        Matching().check(mixed.dynamics, ExpertSamples())
    sampler = Sampler(correlated_gaussian(), VariancePreserving, FourierMLP, None, 5)
    with pytest.raises(InputError, match="Matching needs paths rolled back from points.*OnPolicy rolls out"):
        Matching().check(sampler.dynamics, OnPolicy())
    with pytest.raises(InputError, match="num_transitions must be a whole number of at least 1, got 0"):
        Matching(0)
    without = FunctionTarget(lambda x: -x.square().sum(-1), 2, differentiable=False)
    without.sample = Gaussian([0.0, 0.0], 0.5).sample
    sampler = Sampler(without, VariancePreserving, FourierMLP, None, 5)
    with pytest.raises(InputError, match="use_score must be True or False, got 'auto'"):
        Matching(use_score="auto")
    for use_score in (True, False):  # without a score it is denoising alone
        Matching(use_score=use_score).check(sampler.dynamics, ExpertSamples())
        assert gradients(Matching(64, use_score=use_score), sampler, 2).isfinite().all()


class Ends(ExpertSamples):
    """Of which nobody asks for paths."""

    def paths(self, *_: object) -> Path:
        raise AssertionError("a path was walked")


@pytest.mark.parametrize("combine", [Alternation, Mixture, Succession], ids=lambda combine: combine.__name__)
def test_end_points_of_combinations_are_those_of_their_parts(combine: Callable[[list[Behaviour]], Behaviour]) -> None:
    sampler, loss = small(PROCESSES["VariancePreserving"]), Matching(16)
    loss.adapt(sampler.dynamics)
    both = combine([Ends(), Ends()])
    loss.check(sampler.dynamics, both)
    for progress in (0.0, 0.4, 0.9):
        assert loss.step(sampler.dynamics, both, 8, seeded(0), progress).isfinite()


@pytest.mark.parametrize("wrong", [lambda x: x[:4], lambda x: x.float(), lambda x: None, lambda x: x[:, :1]])
def test_end_points_of_another_shape_or_dtype_are_named(wrong: Callable[[Tensor], object]) -> None:
    class Wrong(Ends):
        def end_points(self, *args: object) -> object:
            return wrong(super().end_points(*args))

    sampler, loss = small(PROCESSES["VariancePreserving"]), Matching(16)
    loss.adapt(sampler.dynamics)
    with pytest.raises(
        InputError, match=r"Wrong.end_points must return states with shape \(8, 2\) of torch.float64, got"
    ):
        loss.step(sampler.dynamics, Wrong(), 8, seeded(0), 0.0)
