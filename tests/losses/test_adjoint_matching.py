"""Adjoint matching: trained by scores at the sampler's own end points. That its gradient is right: test_matching."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import Z_BOUND, correlated_gaussian, random_sampler, seeded
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.behaviours import OnPolicy, Replay
from diffsampler.losses import AdjointMatching
from diffsampler.networks import FourierMLP, LearnedVariance
from diffsampler.processes import PinnedBrownian, Process, Torus, VarianceExploding, VariancePreserving
from targets import VonMisesMixture


def two_humps() -> FunctionTarget:
    """A density with humps at +-1.2 in x[0], which is 1.5 times as high on the right; log Z is exact."""

    def log_prob(x: Tensor) -> Tensor:
        humps = [math.log(a) - 0.5 * ((x[..., 0] - m) / 0.5) ** 2 for m, a in ((-1.2, 0.4), (1.2, 0.6))]
        return torch.logaddexp(*humps) - 0.5 * ((x[..., 1] - 0.4) / 0.7) ** 2

    return FunctionTarget(log_prob, 2, log_z=math.log(2 * math.pi * 0.5 * 0.7))


@pytest.mark.parametrize(
    "process",
    [partial(VariancePreserving, sigma=1.5), partial(PinnedBrownian, sigma=1.5)],
    ids=["VariancePreserving", "PinnedBrownian"],
)
@pytest.mark.slow
def test_own_end_points_are_enough(process: Callable[[int], Process]) -> None:
    # 40 rollouts of 64, replayed: no draw of the target is ever seen. Denoising of the sampler's own draws would leave
    # it as it was. Measured: ESS 0.38 and 0.37, then 0.76 and 0.77; log Z is 0.79.
    torch.manual_seed(0)
    sampler = Sampler(two_humps(), process, partial(LearnedVariance, network=FourierMLP), None, 24)
    before = sampler.estimate_log_z(2000, seed=1)
    options = {"batch_size": 64, "steps_per_epoch": 400, "num_eval_samples": 100, "enable_progress_bar": False}
    fit(sampler, 400, 0, AdjointMatching(512), Replay(replays=9), lr=5e-3, accelerator="cpu", **options)
    after = sampler.estimate_log_z(4000, seed=1)
    assert before.ess < 0.4 and after.ess > 0.65
    assert before.elbo < -1 and after.elbo > 0.55
    assert abs(after.log_z - sampler.target.log_z) < Z_BOUND * (after.high - after.low) / 3.92


def test_replayed_ends_are_kept_points_and_no_path_is_walked() -> None:
    sampler = random_sampler(correlated_gaussian(), process=VariancePreserving, control=FourierMLP, flow=None, grid=5)
    behaviour, dynamics = Replay(replays=2), sampler.dynamics
    fresh = behaviour.end_points(dynamics, 16, seeded(0), 0.0)
    walked = sampler.network_counter.num_evaluations
    assert walked == 16 * 5
    for _ in range(2):
        kept = behaviour.end_points(dynamics, 8, seeded(1), 0.0)
        assert (kept.unsqueeze(1) == fresh).all(-1).any(-1).all()
    assert sampler.network_counter.num_evaluations == walked
    assert (behaviour.end_points(dynamics, 8, seeded(2), 0.0).unsqueeze(1) != fresh).all()
    assert sampler.network_counter.num_evaluations == walked + 8 * 5


def step(loss: AdjointMatching, log_prob: Callable[[Tensor], Tensor]) -> tuple[Sampler, Tensor]:
    """A sampler of this density, with learned widths, and its control's gradients after a step on its own paths."""
    target, control = FunctionTarget(log_prob, 2), partial(LearnedVariance, network=FourierMLP)
    sampler = random_sampler(target, process=partial(PinnedBrownian, sigma=1.4), control=control, flow=None, grid=5)
    loss.step(sampler.dynamics, OnPolicy(), 64, seeded(3), 0.0).backward()
    return sampler, torch.cat([p.grad.flatten() for p in sampler.policy.control.parameters() if p.grad is not None])


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_end_points_without_a_finite_score_teach_nothing_and_are_counted(broken: float) -> None:
    def log_prob(x: Tensor, right_of: float = 0.3) -> Tensor:
        return -x.square().sum(-1) * (1 - torch.where(x[..., 0] > right_of, broken, 0.0))

    sampler, found = step(AdjointMatching(256), log_prob)
    assert found.isfinite().all() and found.abs().max() > 0
    assert sampler.counter.num_invalid > 0
    _, nothing = step(AdjointMatching(256), partial(log_prob, right_of=-1e6))
    assert nothing.abs().max() == 0


class BrokenEnds(OnPolicy):
    """The first end point is no number."""

    def end_points(self, *args: object) -> Tensor:
        x = super().end_points(*args).clone()
        x[0, 0] = math.nan
        return x


def test_an_end_point_that_is_no_number_does_not_spoil_the_others() -> None:
    sampler = random_sampler(correlated_gaussian(), process=VariancePreserving, control=FourierMLP, flow=None, grid=5)
    loss = AdjointMatching(256).step(sampler.dynamics, BrokenEnds(), 16, seeded(3), 0.0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in sampler.policy.control.parameters() if p.grad is not None)


def test_scores_are_shortened_to_the_norm_that_is_asked_for() -> None:
    def steep(x: Tensor) -> Tensor:
        return -1e6 * x.square().sum(-1)

    _, free = step(AdjointMatching(256), steep)
    _, bound = step(AdjointMatching(256, max_score_norm=10.0), steep)
    _, steeper = step(AdjointMatching(256, max_score_norm=10.0), lambda x: 1e100 * steep(x))
    torch.testing.assert_close(steeper, bound, rtol=1e-3, atol=1e-3)
    _, gentle = step(AdjointMatching(256, max_score_norm=1e3), lambda x: -0.5 * x.square().sum(-1))
    _, unbound = step(AdjointMatching(256), lambda x: -0.5 * x.square().sum(-1))
    assert free.norm() > 1e4 * bound.norm() > 0
    assert torch.equal(gentle, unbound)  # no score is as long as that


def test_refuses_what_it_cannot_work_with() -> None:
    def check(target: FunctionTarget, process: Callable[[int], Process]) -> None:
        AdjointMatching().check(Sampler(target, process, FourierMLP, None, 5).dynamics, Replay())

    with pytest.raises(InputError, match="AdjointMatching is for states in R.D, but process Torus walks on Circle"):
        check(VonMisesMixture(2), Torus)
    with pytest.raises(InputError, match="loss AdjointMatching needs a process .* which VarianceExploding has not"):
        check(correlated_gaussian(), partial(VarianceExploding, noise_max=4.0))
    with pytest.raises(InputError, match="AdjointMatching needs the target's score, .* differentiable=False"):
        check(FunctionTarget(lambda x: -x.square().sum(-1), 2, differentiable=False), VariancePreserving)
    with pytest.raises(InputError, match="max_score_norm must be positive and finite, got -1.0"):
        AdjointMatching(max_score_norm=-1.0)
