"""Training: the module and `fit`. Resume and kills are in test_resume.py."""

import json
import subprocess
import sys

import pytest
import torch

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.behaviours import Exploration
from diffsampler.callbacks import ExponentialMovingAverage, summarise_history
from diffsampler.losses import DetailedBalance, LogVariance, SubTrajectoryBalance, TrajectoryBalance
from diffsampler.module import SamplerModule
from targets import Gaussian

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(autouse=True)
def single_precision():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)


def gaussian():
    return Gaussian(mean=[1.0, -0.5], covariance=[[0.6, 0.3], [0.3, 0.8]])


@pytest.mark.parametrize("loss", [SubTrajectoryBalance, TrajectoryBalance, DetailedBalance, LogVariance])
def test_fit_closes_the_elbo_gap(loss):
    sampler = Sampler(gaussian(), grid=10)
    before = sampler.estimate_log_z(4000, seed=1).elbo
    fit(sampler, max_steps=150, loss=loss(), lr=5e-3, batch_size=128, steps_per_epoch=75, **QUIET)
    after = sampler.estimate_log_z(4000, seed=1)
    assert -after.elbo < 0.5 * -before, loss
    # 95 % interval widened to 4 standard errors: a false alarm has a chance of 6e-5.
    assert abs(after.log_z) < 4 * (after.high - after.low) / (2 * 1.96), loss


def test_history_has_an_entry_for_each_validation():
    history = fit(Sampler(gaussian(), grid=5), max_steps=20, steps_per_epoch=5, **QUIET)
    assert [entry["step"] for entry in history] == [5, 10, 15, 20]
    assert json.dumps(history, allow_nan=False)


def test_the_same_seed_gives_the_same_sampler_and_another_seed_another():
    def weights(seed):
        torch.manual_seed(7)
        sampler = Sampler(gaussian(), grid=5)
        fit(sampler, max_steps=6, steps_per_epoch=3, seed=seed, **QUIET)
        return torch.nn.utils.parameters_to_vector(sampler.parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_validation_does_not_touch_the_training_noise():
    def weights(steps_per_epoch):
        torch.manual_seed(7)
        sampler = Sampler(gaussian(), grid=5)
        fit(sampler, max_steps=6, steps_per_epoch=steps_per_epoch, **QUIET)
        return torch.nn.utils.parameters_to_vector(sampler.parameters())

    assert torch.equal(weights(2), weights(6))


class Recorder(torch.nn.Module):
    """Stands in for a trainer: what the module asks of one in configure_optimizers."""

    estimated_stepping_batches = 10


def test_each_part_has_its_own_learning_rate_and_the_rates_fall():
    module = SamplerModule(Sampler(gaussian()), lr=0.1, flow_lr=0.2, log_z_lr=0.3, final_lr_factor=0.25)
    module._fabric = None
    module._trainer = Recorder()
    configuration = module.configure_optimizers()
    groups = configuration["optimizer"].param_groups
    rates = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    assert {rates[id(p)] for p in module.sampler.drift.parameters()} == {0.1}
    assert {rates[id(p)] for p in module.sampler.flow.parameters()} == {0.2}
    assert rates[id(module.sampler.log_z)] == 0.3
    assert module._lr_factor(0) == 1
    assert module._lr_factor(5) == pytest.approx((1 + 0.25) / 2)
    assert module._lr_factor(10) == pytest.approx(0.25)


def test_ranks_draw_different_noise(monkeypatch):
    module = SamplerModule(Sampler(gaussian()), seed=3)
    monkeypatch.setattr(SamplerModule, "global_step", 0)
    draws = []
    for rank in (0, 1):
        monkeypatch.setattr(SamplerModule, "global_rank", rank)
        draws += [torch.randn(4, generator=module.new_generator(stream)) for stream in ("train", "validate")]
    assert len({tuple(draw.tolist()) for draw in draws}) == 4


def test_log_z_starts_at_its_first_estimate():
    target = FunctionTarget(lambda x: 300 - 0.5 * (x - 0.3).square().sum(-1), dim=2)
    sampler = Sampler(target, grid=5)
    fit(sampler, max_steps=1, steps_per_epoch=1, ema_decay=0.0, **QUIET)
    assert abs(sampler.log_z.item() - 301.8) < 1.5


def test_a_loss_that_needs_a_flow_refuses_a_sampler_without_one():
    with pytest.raises(InputError, match="SubTrajectoryBalance needs a flow.*flow=None.*TrajectoryBalance"):
        fit(Sampler(gaussian(), flow=None), max_steps=1, **QUIET)


def test_a_density_that_is_nan_everywhere_is_refused_in_one_sentence():
    target = FunctionTarget(lambda x: x.sum(-1) * float("nan"), dim=2)
    with pytest.raises(InputError, match="FunctionTarget.log_prob is NaN at all"):
        fit(Sampler(target), max_steps=1, **QUIET)


def test_a_density_that_is_zero_wherever_the_sampler_starts_is_refused():
    target = FunctionTarget(lambda x: torch.where(x[..., 0] > 1e6, -x.sum(-1), -torch.inf), dim=2)
    with pytest.raises(InputError, match="not finite at any of"):
        fit(Sampler(target), max_steps=1, **QUIET)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: -x.square().sum(-1, keepdim=True), "one value per point"),
        (lambda x: -x.square(), "one value per point"),
        (lambda x: -x.square().sum(-1).double(), "dtype of x"),
        (lambda x: -x.detach().square().sum(-1), "not differentiable"),
    ],
)
def test_a_wrong_log_prob_is_named(fn, message):
    with pytest.raises(InputError, match=message):
        fit(Sampler(FunctionTarget(fn, dim=3)), max_steps=1, **QUIET)


def test_a_half_space_of_zero_density_trains():
    # N(0, I) cut to x0 > 0.5: log Z = log(1 - Phi(0.5)).
    def log_prob(x):
        normal = -0.5 * x.square().sum(-1) - x.shape[-1] * 0.9189385332046727
        return torch.where(x[..., 0] > 0.5, normal, -torch.inf)

    truth = torch.special.log_ndtr(torch.tensor(-0.5)).item()
    sampler = Sampler(FunctionTarget(log_prob, dim=2), grid=20)
    before = sampler.estimate_log_z(4000, seed=1).ess
    fit(sampler, max_steps=200, lr=5e-3, steps_per_epoch=100, **QUIET)
    after = sampler.estimate_log_z(4000, seed=1)
    assert after.ess > before
    assert abs(after.log_z - truth) < 4 * (after.high - after.low) / (2 * 1.96)


def test_training_that_diverges_says_so():
    with pytest.raises(InputError, match="Training diverged"):
        fit(Sampler(gaussian(), grid=5), max_steps=50, lr=1e30, gradient_clip_val=None, **QUIET)


@pytest.mark.parametrize("name", ["lr", "flow_lr", "log_z_lr", "weight_decay", "final_lr_factor"])
def test_negative_rates_are_refused(name):
    with pytest.raises(InputError, match=f"^{name} must be"):
        SamplerModule(Sampler(gaussian()), **{name: -1.0})


def test_the_average_forgets_the_start_and_excludes_buffers():
    average = ExponentialMovingAverage(0.9)._kwargs["avg_fn"]
    mean = torch.tensor(100.0)
    for n in range(100):
        mean = average(mean, torch.tensor(1.0), torch.tensor(n))
    assert abs(mean - 1) < 0.01
    assert not ExponentialMovingAverage()._use_buffers
    with pytest.raises(InputError, match="decay"):
        ExponentialMovingAverage(1.0)


def test_the_summary_is_the_mean_of_the_last_evaluations():
    history = [{"step": i, "log_z": float(i), "elbo": float(i) - 1, "ess": 0.5} for i in range(8)]
    summary = summarise_history(history, true_log_z=5.0)
    assert summary["count"] == 5
    assert summary["log_z"] == 5.0
    assert summary["abs_log_z_error"] == pytest.approx((2 + 1 + 0 + 1 + 2) / 5)
    assert summary["elbo_gap"] == pytest.approx(1.0)


def test_exploration_follows_the_training_progress():
    class Recording(Exploration):
        seen = []

        def paths(self, sampler, n, generator, progress):
            self.seen.append(progress)
            return super().paths(sampler, n, generator, progress)

    fit(Sampler(gaussian(), grid=3), max_steps=4, steps_per_epoch=2, behaviour=Recording(), **QUIET)
    assert Recording.seen == [0.0, 0.25, 0.5, 0.75]


def test_import_loads_neither_lightning_nor_matplotlib():
    code = "import sys, diffsampler, targets; print({'lightning', 'matplotlib', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
