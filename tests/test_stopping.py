"""Training ends when log Z is known well enough: not before, not by luck, and the run is kept all the same."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import searched, two_modes
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target, assess, fit
from diffsampler.cli import main
from diffsampler.training.module import SamplerModule
from diffsampler.training.stopping import Stopping, progress_in_cycle
from targets import Gaussian

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"batch_size": 32, "steps_per_epoch": 5, "num_eval_samples": 500, **QUIET}


# By quadrature: log 2 pi + log E[exp(-0.02 tanh(x - 1))] for x ~ N(0, 1).
SKEWED_LOG_Z = math.log(2 * math.pi) + 0.011057


def nearly_gaussian() -> Target:
    """A search alone knows it: a Gaussian but for a little skew."""
    return FunctionTarget(
        lambda x: -0.5 * x.square().sum(-1) - 0.02 * (x[..., 0] - 1).tanh(),
        dim=2,
    )


@pytest.mark.slow
def test_a_tolerance_of_zero_trains_to_the_last_step() -> None:
    history = fit(searched(nearly_gaussian), max_steps=7, tolerance=0, **SMALL)
    assert history[-1]["step"] == 7 and history[-1]["ended"] == "all 7 steps are done (max_steps)"


@pytest.mark.slow
def test_training_goes_on_where_a_search_is_not_enough() -> None:
    # Untrained, the sampler draws one Gaussian for two modes; nothing is known to a thousandth of a nat for years.
    history = fit(searched(two_modes), max_steps=10, tolerance=1e-3, **SMALL)
    assert [entry["step"] for entry in history] == [5, 10] and "max_steps" in history[-1]["ended"]


@pytest.mark.slow
def test_training_ends_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    # Searches suffice for all that can be trained in seconds: the decision is that of a stand-in.
    decided = []

    def why(stopping: Stopping, step: int) -> str:
        decided.append((stopping.tolerance, stopping.seed, step))
        return "all is known" if step >= 50 else ""

    monkeypatch.setattr(Stopping, "why", why)
    sizes = {"batch_size": 8, "steps_per_epoch": 10, "num_eval_samples": 100, **QUIET}
    history = fit(searched(two_modes), max_steps=200, seed=4, tolerance=0.5, lr=1e-6, **sizes)
    assert decided == [(0.5, 4, 0), (0.5, 4, 50)]
    assert [entry["step"] for entry in history] == [10, 20, 30, 40, 50]
    assert [entry.get("ended") for entry in history] == [None] * 4 + ["all is known"]
    # Not even asked where few draws already say that the interval is too wide.
    decided.clear()
    fit(searched(two_modes), max_steps=10, tolerance=1e-4, **sizes)
    assert decided == []


@pytest.mark.slow
def test_training_ends_where_only_the_search_is_in_doubt() -> None:
    sampler = searched(nearly_gaussian)
    sampler.coordinates.reference = replace(sampler.reference, unseen=0.2)
    history = fit(sampler, max_steps=20, **SMALL)
    assert history[-1]["step"] == 0
    assert history[-1]["ended"].startswith("log Z is known to +- 0.05, and what is doubtful about it no training mends")
    assert assess(sampler, history=history).verdict.grade == "doubtful"


def test_others_train_to_the_end_unless_they_ask() -> None:
    sampler = Sampler(nearly_gaussian(), grid=3)
    assert SamplerModule(sampler).tolerance == 0
    assert SamplerModule(Sampler(nearly_gaussian())).tolerance == 0.05
    assert SamplerModule(sampler, tolerance=0.3).tolerance == 0.3
    # Without a search nothing stands beside the weights: doubtful, so training goes on.
    assert fit(sampler, max_steps=5, tolerance=10.0, **SMALL)[-1]["step"] == 5
    # Exact draws do stand beside them; nothing was searched.
    history = fit(Sampler(Gaussian([0.0, 0.0]), grid=3), max_steps=5, tolerance=10.0, **SMALL)
    assert history[-1]["step"] == 0 and history[-1]["ended"].endswith("trustworthy, before any training")


@pytest.mark.slow
def test_wide_intervals_are_no_reason_to_end() -> None:
    sampler = searched(two_modes)
    # 10 000 draws of a sampler with log-weights of standard deviation s know log Z to +- 0.02 s: not to 1e-5.
    assert Stopping(sampler, 1e-5, 0).why(0) == ""


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf, "0.05", [0.1]], ids=repr)
def test_bad_tolerances_are_refused_in_a_sentence(tolerance: object) -> None:
    with pytest.raises(InputError, match=r"^tolerance must be .*, got .*\.$") as refused:
        fit(Sampler(nearly_gaussian()), max_steps=5, tolerance=tolerance, **SMALL)
    assert "\n" not in str(refused.value)


class Recording(Target):
    """A target that keeps the points that it was asked for, by the size of the batch."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.dim)
        self.target, self.asked = target, {}

    def log_prob(self, x: Tensor) -> Tensor:
        points = x.detach().clone().reshape(-1, self.dim)
        self.asked.setdefault(len(points), []).append(points)
        return self.target.log_prob(x)


@pytest.mark.slow
def test_what_a_search_alone_knows_is_not_trained_and_what_is_reported_has_not_decided() -> None:
    target = Recording(nearly_gaussian())
    sampler = searched(nearly_gaussian, target)
    before = {name: value.clone() for name, value in sampler.policy.control.state_dict().items()}
    (entry,) = fit(sampler, max_steps=10_000, **SMALL)
    assert entry["step"] == 0 and entry["num_samples"] == 500
    assert entry["ended"] == "log Z is known to +- 0.05 and graded trustworthy, by the search alone"
    assert all(torch.equal(value, before[name]) for name, value in sampler.policy.control.state_dict().items())
    # What is counted, and the 2000 walks back from draws of the target, to judge, which are not.
    assert sum(n * len(batches) for n, batches in target.asked.items()) == sampler.num_target_evaluations + 2000
    (deciding,) = target.asked.pop(10_000)
    first = {tuple(point.tolist()) for point in deciding}
    assert len(first) == 10_000
    assert not any(tuple(point.tolist()) in first for parts in target.asked.values() for x in parts for point in x)
    # What was promised: half of the interval of 10 000 draws, others, is below 0.05, and the grade is the first.
    found = assess(sampler, seed=0)
    (drawn,) = target.asked.pop(10_000)
    assert found.estimate.num_samples == 10_000 and not any(tuple(point.tolist()) in first for point in drawn)
    assert max(found.estimate.high - found.estimate.log_z, found.estimate.log_z - found.estimate.low) <= 0.05
    assert found.verdict.grade == "trustworthy" and abs(found.estimate.log_z - SKEWED_LOG_Z) < 0.05


def test_a_budget_is_kept_by_decisions_too() -> None:
    sampler = searched(nearly_gaussian)
    spent = sampler.counter.num_evaluations = sampler.search_cost
    # Enough to train on, not to decide: 2 * 10 000 draws.
    history = fit(sampler, max_steps=10, max_target_evaluations=spent + 12_000, **SMALL)
    assert sampler.num_target_evaluations <= spent + 12_000
    assert "max_steps" in history[-1]["ended"] or "max_target_evaluations" in history[-1]["ended"]


@pytest.mark.parametrize("total", [401, 1000, 1999, 4000, 5000, 5001])
def test_cycles_of_the_learning_rate(total: int) -> None:
    progress = [progress_in_cycle(step, total) for step in range(total + 1)]
    assert progress[0] == 0 and progress[-1] == 1.0 and all(0 <= done <= 1 for done in progress)
    starts = [k for k, (before, after) in enumerate(zip(progress, progress[1:], strict=False), 1) if after < before]
    assert all(progress[k] == 0 for k in starts)
    # The first takes 400 steps, each further one twice as many as the one before; a short rest joins the last.
    lengths = [end - start for start, end in zip([0, *starts], [*starts, total], strict=True)]
    expected = [400 * 2**k for k in range(len(lengths))]
    assert lengths[:-1] == expected[:-1] and 0.5 * expected[-1] < lengths[-1] <= 2 * expected[-1], lengths


def test_training_without_a_last_step_has_cycles_for_ever() -> None:
    assert [progress_in_cycle(step, math.inf) for step in (0, 200, 400, 800, 1200)] == [0.0, 0.5, 0.0, 0.5, 0.0]


# --- checkpoints


def keeping(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


@pytest.mark.slow
def test_a_resumed_run_decides_as_an_uninterrupted_one(tmp_path: Path) -> None:
    # What was tried and failed is not tried again at once, at steps 30 and 40 after a restart at 20.
    def run(max_steps: int, folder: str, **options: object) -> tuple[Sampler, list[dict]]:
        sampler = searched(two_modes)
        options = {"enable_checkpointing": True, "callbacks": [keeping(tmp_path / folder)], **options}
        sizes = {"batch_size": 8, "steps_per_epoch": 10, "num_eval_samples": 100, **QUIET}
        return sampler, fit(sampler, max_steps=max_steps, tolerance=0.5, lr=1e-6, **sizes, **options)

    tried = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stopping, "why", lambda stopping, step: tried.append(step) or "")
        whole, history = run(50, "whole")
        straight = tried.copy()
        tried.clear()
        run(20, "half")
        again, resumed = run(50, "rest", ckpt_path=str(tmp_path / "half/last.ckpt"))
    assert straight == [0, 50] and tried == straight, (straight, tried)
    assert [entry["step"] for entry in resumed] == [entry["step"] for entry in history]


@pytest.mark.slow
def test_a_run_that_ended_by_itself_can_be_resumed(tmp_path: Path) -> None:
    sampler, again = searched(two_modes), Sampler(two_modes())
    keep = {"enable_checkpointing": True, "callbacks": [keeping(tmp_path)]}
    history = fit(sampler, max_steps=20, tolerance=0, **SMALL, **keep)
    resumed = fit(again, max_steps=25, tolerance=0, ckpt_path=str(tmp_path / "last.ckpt"), **SMALL)
    assert [entry["step"] for entry in resumed] == [*(entry["step"] for entry in history), 25]
    assert [entry["step"] for entry in resumed if "ended" in entry][-1] == 25
    assert again.search_cost == sampler.search_cost and again.reference == sampler.reference


@pytest.mark.slow
def test_the_command_line_keeps_what_was_not_trained(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    small = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--report.figures=false"]
    small += ["--data.num_test_samples=1000"]
    main(["fit", "--model.target=Gaussian", "--model.target.mean=[5.0,-1.0]", *small])
    run = working_folder / "runs/Gaussian/version_0"
    results = json.loads((run / "results.json").read_text())
    assert results["verdict"]["grade"] == "trustworthy" and results["step"] == 0
    # The search is what there is: nobody forgot to give a checkpoint.
    assert "These are the weights before any training" not in capsys.readouterr().out
    assert (run / "checkpoints/last.ckpt").is_file()
    main(["test", f"--ckpt_path={run}/checkpoints/last.ckpt", *small])
    again = json.loads((run / "results.json").read_text())
    assert again["log_z"] == results["log_z"] and again["reference"] == results["reference"]
    main(["predict", f"--ckpt_path={run}/checkpoints/last.ckpt", *small])
    assert (run / "samples.npz").is_file()
