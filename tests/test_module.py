"""Training: the module and `fit`. Resume and kills are in test_resume.py."""

import json
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.behaviours import Exploration, OnPolicy
from diffsampler.losses import DetailedBalance, LogVariance, SubTrajectoryBalance, TrajectoryBalance, TrajectoryLoss
from diffsampler.networks import FourierMLP
from diffsampler.processes import Bridge, PinnedBrownian
from diffsampler.training.callbacks import ExponentialMovingAverage, summarise_history
from diffsampler.training.data import TrajectoryCounts
from diffsampler.training.module import SamplerModule
from targets import Gaussian

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(autouse=True)
def single_precision():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)


def gaussian():
    return Gaussian(mean=[1.0, -0.5], covariance=[[0.6, 0.3], [0.3, 0.8]])


@pytest.mark.parametrize(
    "loss",
    [
        SubTrajectoryBalance,
        pytest.param(TrajectoryBalance, marks=pytest.mark.slow),
        pytest.param(DetailedBalance, marks=pytest.mark.slow),
        pytest.param(LogVariance, marks=pytest.mark.slow),
    ],
)
def test_fit_closes_the_elbo_gap(loss):
    sampler = Sampler(gaussian(), grid=10)
    before = sampler.estimate_log_z(4000, seed=1).elbo
    fit(sampler, max_steps=100, loss=loss(), lr=1e-2, batch_size=64, steps_per_epoch=50, **QUIET)
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
    module = SamplerModule(Sampler(gaussian(), grid=3), lr=0.1, flow_lr=0.2, log_z_lr=0.3, final_lr_factor=0.25)
    module._fabric = None
    module._trainer = Recorder()
    configuration = module.configure_optimizers()
    groups = configuration["optimizer"].param_groups
    rates = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    assert {rates[id(p)] for p in module.sampler.policy.control.parameters()} == {0.1}
    assert {rates[id(p)] for p in module.sampler.policy.flow.parameters()} == {0.2}
    assert rates[id(module.sampler.policy.log_z)] == 0.3
    (factor,) = configuration["lr_scheduler"]["scheduler"].lr_lambdas[:1]
    assert [factor(step) for step in (0, 5, 10)] == pytest.approx([1, (1 + 0.25) / 2, 0.25])


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
    assert abs(sampler.policy.log_z.item() - 301.8) < 1.5


def test_a_loss_that_needs_a_flow_refuses_a_sampler_without_one():
    with pytest.raises(InputError, match="SubTrajectoryBalance needs a flow.*flow=None.*TrajectoryBalance"):
        fit(Sampler(gaussian(), flow=None), max_steps=1, **QUIET)


def test_a_density_that_is_nan_everywhere_is_refused_in_one_sentence():
    target = FunctionTarget(lambda x: x.sum(-1) * float("nan"), dim=2)
    for parts in ({}, {"grid": 5}):
        with pytest.raises(InputError, match="FunctionTarget.log_prob is NaN at all"):
            fit(Sampler(target, **parts), max_steps=1, **QUIET)


def test_a_density_that_is_zero_wherever_the_sampler_starts_is_refused():
    target = FunctionTarget(lambda x: torch.where(x[..., 0] > 1e6, -x.sum(-1), -torch.inf), dim=2)
    with pytest.raises(InputError, match="not finite at any of"):
        fit(Sampler(target), max_steps=1, **QUIET)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: -x.square().sum(-1, keepdim=True), "one value per point"),
        (lambda x: -x.square(), "one value per point"),
        (lambda x: -x.detach().square().sum(-1), "not differentiable"),
    ],
)
def test_a_wrong_log_prob_is_named(fn, message):
    with pytest.raises(InputError, match=message):
        fit(Sampler(FunctionTarget(fn, dim=3), grid=5), max_steps=1, **QUIET)


@pytest.mark.slow
def test_a_half_space_of_zero_density_trains():
    # N(0, I) cut to x0 > 0.5: log Z = log(1 - Phi(0.5)).
    def log_prob(x):
        normal = -0.5 * x.square().sum(-1) - x.shape[-1] * 0.9189385332046727
        return torch.where(x[..., 0] > 0.5, normal, -torch.inf)

    truth = torch.special.log_ndtr(torch.tensor(-0.5)).item()
    sampler = Sampler(FunctionTarget(log_prob, dim=2), grid=10)
    before = sampler.estimate_log_z(4000, seed=1).ess
    fit(sampler, max_steps=150, lr=5e-3, batch_size=64, steps_per_epoch=75, **QUIET)
    after = sampler.estimate_log_z(4000, seed=1)
    assert after.ess > before
    assert abs(after.log_z - truth) < 4 * (after.high - after.low) / (2 * 1.96)


def test_training_that_diverges_says_so():
    with pytest.raises(InputError, match="Training diverged"):
        fit(Sampler(gaussian(), grid=5), max_steps=50, lr=1e30, gradient_clip_val=None, **QUIET)


class NowAndThenNaN(TrajectoryBalance):
    """Of every fifty losses one is no number, and neither is its gradient."""

    calls = 0

    def forward(self, trajectory):
        self.calls += 1
        return super().forward(trajectory) * (math.nan if self.calls % 50 == 10 else 1.0)


def test_a_step_without_a_finite_gradient_is_left_out_and_reported():
    sampler = Sampler(gaussian(), grid=5)
    with pytest.warns(UserWarning, match="1 of the last 50 steps had a gradient that is not finite"):
        fit(sampler, max_steps=100, loss=NowAndThenNaN(), **QUIET)
    assert all(parameter.isfinite().all() for parameter in sampler.parameters())
    assert sampler.estimate_log_z(500, seed=0).ess > 0.3


def test_one_bad_step_of_a_short_epoch_is_no_divergence():
    sampler = Sampler(gaussian(), grid=5)
    fit(sampler, max_steps=12, steps_per_epoch=5, num_eval_samples=50, loss=NowAndThenNaN(), **QUIET)
    assert all(parameter.isfinite().all() for parameter in sampler.parameters())


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
    summary = summarise_history(history, true_log_z=5.5)
    assert summary["count"] == 5
    assert summary["log_z"] == 5.0
    assert summary["abs_log_z_error"] == pytest.approx((2.5 + 1.5 + 0.5 + 0.5 + 1.5) / 5)
    assert summary["elbo_gap"] == pytest.approx(1.5)


def test_exploration_follows_the_training_progress():
    class Recording(Exploration):
        seen = []

        def paths(self, dynamics, n, generator, progress):
            self.seen.append(progress)
            return super().paths(dynamics, n, generator, progress)

    fit(Sampler(gaussian(), grid=3), max_steps=4, steps_per_epoch=2, behaviour=Recording(), **QUIET)
    assert Recording.seen == [0.0, 0.25, 0.5, 0.75]


class Recorded(L.Callback):
    """What an optimiser sees and does, step by step."""

    def __init__(self):
        self.weights, self.norms, self.rates, self.decays = [], [], [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        self.decays.append([group["weight_decay"] for group in optimizer.param_groups])

    def on_before_zero_grad(self, trainer, module, optimizer):
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        if gradients:
            self.norms.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))))

    def on_train_batch_end(self, trainer, module, *args):
        self.weights.append(torch.nn.utils.parameters_to_vector(module.sampler.parameters()).detach().clone())


def test_fit_ends_on_the_average_of_the_weights():
    sampler, recorded = Sampler(gaussian(), grid=3), Recorded()
    start = torch.nn.utils.parameters_to_vector(sampler.parameters()).detach().clone()
    fit(sampler, max_steps=30, steps_per_epoch=10, lr=1e-2, ema_decay=0.8, callbacks=recorded, **QUIET)
    end = torch.nn.utils.parameters_to_vector(sampler.parameters()).detach()
    # The first update copies the weights; then the decay warms up as (1 + n) / (10 + n) to 0.8.
    average = recorded.weights[0]
    for n, weights in enumerate(recorded.weights[1:], start=1):
        average = torch.lerp(average, weights, 1 - min(0.8, (1 + n) / (10 + n)))
    torch.testing.assert_close(end, average, rtol=1e-4, atol=1e-6)
    assert (end - recorded.weights[-1]).abs().max() > 1e-4 and (end - start).abs().max() > 1e-2


def test_gradients_are_clipped():
    target = FunctionTarget(lambda x: -50 * (x - 2).square().sum(-1), dim=2)
    for clip, largest in ((1.0, 1.0), (None, math.inf)):
        recorded = Recorded()
        options = {} if clip == 1.0 else {"gradient_clip_val": clip}
        fit(Sampler(target, grid=3), max_steps=5, steps_per_epoch=5, callbacks=recorded, **options, **QUIET)
        # What is left after the step: the clipped gradient.
        assert max(recorded.norms) <= largest * 1.001
        assert clip == 1.0 or max(recorded.norms) > 2


class Scaled(TrajectoryLoss):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, trajectory):
        return self.scale * trajectory.log_weight.var()


@pytest.mark.parametrize("loss", [Scaled(), SubTrajectoryBalance(), LogVariance()], ids=lambda x: type(x).__name__)
def test_every_parameter_is_trained_once(loss):
    module = SamplerModule(Sampler(gaussian(), Bridge, grid=3), loss, weight_decay=0.5)
    groups = module.optimisation.groups(module.sampler.policy, loss)
    trained = [id(p) for group in groups for p in group["params"]]
    assert len(trained) == len(set(trained))
    assert set(trained) == {id(p) for p in module.parameters()}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays[id(module.sampler.policy.log_z)] == 0.0
    assert decays[id(next(module.sampler.policy.control.parameters()))] == 0.5


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("loss", [SubTrajectoryBalance, LogVariance])
def test_what_is_frozen_stays_so_and_what_a_loss_leaves_is_left(loss, frozen):
    sampler = Sampler(gaussian(), grid=3)
    flow = sampler.policy.flow.requires_grad_(not frozen)
    before = [parameter.clone() for parameter in flow.parameters()]
    fit(sampler, max_steps=3, loss=loss(), ema_decay=0.0, **QUIET)
    moved = any(not torch.equal(old, new) for old, new in zip(before, flow.parameters(), strict=True))
    assert moved == (loss is SubTrajectoryBalance and not frozen)
    assert all(parameter.requires_grad != frozen for parameter in flow.parameters())
    assert sampler.policy.log_z.requires_grad


def test_the_last_step_is_validated():
    history = fit(Sampler(gaussian(), grid=3), max_steps=7, steps_per_epoch=5, **QUIET)
    assert [entry["step"] for entry in history] == [5, 7]


def test_a_flow_that_the_loss_does_not_use_costs_nothing():
    def count(**parts):
        sampler = Sampler(gaussian(), control=FourierMLP, grid=10, **parts)
        fit(sampler, max_steps=3, steps_per_epoch=3, batch_size=8, loss=TrajectoryBalance(), **QUIET)
        return sampler.num_target_evaluations

    assert count() == count(flow=None)


def test_double_precision():
    sampler = Sampler(gaussian(), grid=3)
    history = fit(sampler, max_steps=4, steps_per_epoch=2, precision="64-true", **QUIET)
    assert len(history) == 2 and sampler.sample(2).dtype == torch.float64


@pytest.mark.parametrize("sigma", [1.0, 1.1])
def test_averaging_leaves_buffers_alone(sigma):
    # 1.1 is not the same number in float32.
    sampler = Sampler(gaussian(), partial(PinnedBrownian, sigma=sigma), grid=3)
    fit(sampler, max_steps=4, steps_per_epoch=2, **QUIET)
    assert sampler.policy.process.sigma.dtype == torch.float64 and float(sampler.policy.process.sigma) == sigma


def checkpointed(sampler, folder, **options):
    fit(sampler, steps_per_epoch=2, enable_checkpointing=True, default_root_dir=str(folder), **options, **QUIET)
    (checkpoint,) = folder.rglob("*.ckpt")
    return checkpoint


def test_checkpoints_load_into_a_sampler(tmp_path):
    sampler = Sampler(gaussian(), grid=3)
    checkpoint = checkpointed(sampler, tmp_path, max_steps=4, lr=1e-2)
    other = Sampler(gaussian(), grid=3)
    other.load_checkpoint(checkpoint)
    # What `fit` itself has spent, and not the validation after its last checkpoint, is in the file.
    assert other.num_target_evaluations == sampler.num_target_evaluations > 0
    assert torch.equal(sampler.sample(5, seed=1), other.sample(5, seed=1))
    with pytest.raises(InputError, match=r"made otherwise: flow was ForwardLookingFlow\(.*, and is None"):
        Sampler(gaussian(), grid=3, flow=None).load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a checkpoint file"),
        (b"", "cannot be read"),
        (b"text", "cannot be read"),
        (b"PK\x03\x04", "read"),
    ],
)
def test_broken_checkpoints_are_named(content, message, tmp_path):
    file = tmp_path / "bad.ckpt"
    if content is not None:
        file.write_bytes(content)
    for use in (
        lambda: fit(Sampler(gaussian()), ckpt_path=str(file), **QUIET),
        lambda: Sampler(gaussian()).load_checkpoint(file),
    ):
        with pytest.raises(InputError, match=message):
            use()


def test_foreign_and_truncated_checkpoints_are_named(tmp_path):
    file = tmp_path / "foreign.ckpt"
    torch.save(Sampler(gaussian(), grid=3).state_dict(), file)
    with pytest.raises(InputError, match="not written by diffsampler"):
        fit(Sampler(gaussian()), ckpt_path=str(file), **QUIET)
    checkpoint = checkpointed(Sampler(gaussian(), grid=3), tmp_path / "run", max_steps=2)
    file.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read"):
        fit(Sampler(gaussian()), ckpt_path=str(file), **QUIET)


def test_a_resumed_run_takes_the_rates_asked_for_now(tmp_path):
    checkpoint = checkpointed(Sampler(gaussian(), grid=3), tmp_path, max_steps=4, lr=1e-3)
    recorded = Recorded()
    options = {"lr": 5e-3, "flow_lr": 7e-3, "callbacks": recorded, "steps_per_epoch": 2}
    fit(Sampler(gaussian(), grid=3), max_steps=8, ckpt_path=str(checkpoint), **options, **QUIET)
    assert len(recorded.rates) == 4
    factors = [0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(4, 8)]
    for rates, factor in zip(recorded.rates, factors, strict=True):
        assert rates == pytest.approx([5e-3 * factor, 7e-3 * factor, 1e-1 * factor])


def test_nothing_left_to_train_is_said(tmp_path):
    checkpoint = checkpointed(Sampler(gaussian(), grid=3), tmp_path, max_steps=4)
    with pytest.raises(InputError, match="at step 4 already"):
        fit(Sampler(gaussian(), grid=3), max_steps=4, ckpt_path=str(checkpoint), **QUIET)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampler(gaussian(), process=Bridge(3)), "walks in 3 dimensions, but the target has 2 here"),
        (lambda: Sampler(gaussian(), process="PinnedBrownian"), "process must be a Process"),
        (lambda: Sampler(gaussian(), control="FourierMLP"), "control must be a Control"),
        (lambda: Sampler(gaussian(), flow=FourierMLP), "flow must be a StateFlow"),
        (lambda: SamplerModule(Sampler(gaussian()), SubTrajectoryBalance), "loss must be an Objective"),
        (lambda: SamplerModule(Sampler(gaussian()), "tb"), "loss must be an Objective"),
        (lambda: SamplerModule(Sampler(gaussian()), behaviour=OnPolicy), "behaviour must be a Behaviour"),
    ],
)
def test_parts_of_the_wrong_kind_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: -x[..., 2].square(), r"shape \(\*, 2\).*IndexError"),
        (lambda x: torch.as_tensor(-(x.numpy() ** 2).sum(-1)), r"FunctionTarget.log_prob leaves torch"),
    ],
)
def test_an_energy_that_raises_is_named(fn, message):
    for parts in ({}, {"grid": 5}):
        with pytest.raises(InputError, match=message):
            fit(Sampler(FunctionTarget(fn, dim=2), **parts), max_steps=1, **QUIET)


RANKS = """
import json, sys, torch
from lightning.pytorch import Callback
from diffsampler import Sampler, fit
from targets import Gaussian
torch.manual_seed(0)
sampler = Sampler(Gaussian(mean=[1.0, -0.5]), grid=5)

class Look(Callback):
    def on_train_end(self, trainer, module):
        weights = torch.nn.utils.parameters_to_vector(sampler.parameters())
        state = {"log_z": sampler.policy.log_z.item(), "sum": weights.double().sum().item(),
                 "own": module.sampler.counter.num_evaluations, "generator": module.generator.get_state().sum().item()}
        with open(f"{sys.argv[1]}/rank_{trainer.global_rank}.json", "w") as file:
            json.dump({**state, "history": module.history}, file)

fit(sampler, max_steps=6, steps_per_epoch=3, batch_size=16, num_eval_samples=101, accelerator="cpu", devices=2,
    strategy="ddp", enable_progress_bar=False, callbacks=Look())
"""


@pytest.mark.slow  # tests/test_distributed.py launches two, too
def test_two_ranks_train_one_sampler_with_different_noise(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1))
    assert first["log_z"] == second["log_z"] and first["sum"] == second["sum"]
    assert first["generator"] != second["generator"]
    assert first["history"] == second["history"]
    entry = first["history"][-1]
    # 101 draws in two equal shares; the count is that of both ranks.
    assert entry["num_samples"] == 102
    assert entry["num_target_evaluations"] == first["own"] + second["own"]


def test_a_budget_of_evaluations_ends_training():
    sampler, recorded = Sampler(gaussian(), grid=4), Recorded()
    module = SamplerModule(sampler, lr=1e-2, max_target_evaluations=6000)
    trainer = L.Trainer(max_steps=1000, callbacks=recorded, logger=False, enable_checkpointing=False, **QUIET)
    trainer.fit(module, TrajectoryCounts(batch_size=16, steps_per_epoch=10, num_eval_samples=20))
    # 5 states a trajectory: the 512 x 5 of the start, 80 a step, 100 a validation.
    assert 6000 - 80 - 2 * 100 <= sampler.num_target_evaluations <= 6000
    assert module.history[-1]["step"] == trainer.global_step < 60
    rates = [rates[0] for rates in recorded.rates]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.1 * rates[0]
