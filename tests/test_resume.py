"""A killed run, resumed from its last checkpoint, ends bitwise where an uninterrupted one ends (CPU, same seed)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffsampler.cli import main
from diffsampler.training.module import SamplerModule

ARGUMENTS = [
    "fit",
    "--model.target=GaussianMixture9",
    "--model.grid=10",
    "--model.behaviour=Exploration",
    "--trainer.max_steps=60",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--data.steps_per_epoch=5",
    "--data.batch_size=32",
    "--data.num_eval_samples=100",
    "--data.num_test_samples=100",
    "--report.figures=false",
    "--seed_everything=3",
]


@pytest.fixture(autouse=True)
def single_precision():
    torch.set_default_dtype(torch.float32)


def run(folder, monkeypatch, *more):
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    main([*ARGUMENTS, *more])


def load(path):
    return torch.load(path, weights_only=True, map_location="cpu")


def wait_for_step(process, checkpoint, step):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it was killed"
        # Written whole or not at all, so whatever is there loads.
        if checkpoint.exists() and load(checkpoint)["global_step"] >= step:
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step}")


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def test_sigkill_and_resume_is_bitwise_the_uninterrupted_run(tmp_path, monkeypatch):
    run(tmp_path / "whole", monkeypatch)
    whole = load(tmp_path / "whole/runs/GaussianMixture9/version_0/checkpoints/last.ckpt")

    killed = tmp_path / "killed"
    killed.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    # Long enough that it is still running when the signal comes; learning rates follow max_steps, so it stays 60.
    command = [sys.executable, "-c", SLOW_RUN, *ARGUMENTS]
    process = subprocess.Popen(command, cwd=killed, env=environment, stdout=subprocess.DEVNULL)
    checkpoint = killed / "runs/GaussianMixture9/version_0/checkpoints/last.ckpt"
    try:
        wait_for_step(process, checkpoint, 15)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    stopped_at = load(checkpoint)["global_step"]
    assert 15 <= stopped_at < 60

    run(killed, monkeypatch, f"--ckpt_path={checkpoint}")
    resumed = load(killed / "runs/GaussianMixture9/version_1/checkpoints/last.ckpt")
    assert resumed["global_step"] == whole["global_step"] == 60
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert_equal(resumed[key], whole[key])
    for key in ("generators", "history", "num_target_evaluations", "num_invalid_evaluations", "behaviour"):
        assert_equal(resumed[key], whole[key])
    assert len(whole["history"]) == 12


# The same command line, with a pause after each step so that the kill lands in the middle of training.
SLOW_RUN = """
import sys, time
from diffsampler.training.module import SamplerModule
step = SamplerModule.training_step
def slow(self, *args):
    time.sleep(0.05)
    return step(self, *args)
SamplerModule.training_step = slow
from diffsampler.cli import main
main(sys.argv[1:])
"""


# A set lasts for seven steps: at step 5, after a validation, there are two left for it.
SET = ["TrustRegionLogVariance", "--model.loss.num_paths=5000", "--model.loss.steps_per_set=7"]
RING = ["Matching", "--model.behaviour=WeightedPaths", "--model.behaviour.size=5000"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [[*SET, "--model.behaviour=OnPolicy"], [*RING, "--model.behaviour.trust_region=0.5"]],
    ids=["TrustRegionLogVariance", "WeightedPaths"],
)
def test_resume_amid_a_set_of_paths_keeps_it(parts, tmp_path, monkeypatch):
    more = [f"--model.loss={parts[0]}", *parts[1:], "--model.flow=null", "--model.process=VariancePreserving"]
    more += ["--trainer.max_steps=10"]
    run(tmp_path / "whole", monkeypatch, *more)
    with monkeypatch.context() as patch:
        step = SamplerModule.training_step

        def cut_off(self, *args):
            if self.global_step == 6:
                raise MemoryError("cut off")
            return step(self, *args)

        patch.setattr(SamplerModule, "training_step", cut_off)
        with pytest.raises(MemoryError, match="cut off"):
            run(tmp_path / "cut", monkeypatch, *more)
    checkpoint = tmp_path / "cut/runs/GaussianMixture9/version_0/checkpoints/last.ckpt"
    assert load(checkpoint)["global_step"] == 5
    run(tmp_path / "cut", monkeypatch, *more, f"--ckpt_path={checkpoint}")
    whole = load(tmp_path / "whole/runs/GaussianMixture9/version_0/checkpoints/last.ckpt")
    resumed = load(tmp_path / "cut/runs/GaussianMixture9/version_1/checkpoints/last.ckpt")
    assert resumed["global_step"] == whole["global_step"] == 10
    for key in ("state_dict", "current_model_state", "generators", "history", "num_target_evaluations", "behaviour"):
        assert_equal(resumed[key], whole[key])
    # The set is there once: points and scores of 11 times in 2 dimensions, and three numbers a path in float64.
    network = sum(value.numel() * 4 for value in whole["state_dict"].values() if isinstance(value, torch.Tensor))
    assert checkpoint.stat().st_size < 4 * network + 5000 * (2 * 11 * 2 * 4 + 3 * 8) + 150_000


def test_checkpoints_load_with_weights_only(tmp_path, monkeypatch):
    run(tmp_path / "run", monkeypatch, "--trainer.max_steps=5")
    checkpoint = load(tmp_path / "run/runs/GaussianMixture9/version_0/checkpoints/last.ckpt")
    assert checkpoint["history"][-1]["step"] == 5
    assert checkpoint["num_target_evaluations"] > 5 * 32
