"""What goes wrong outside the library: it works all the same or one sentence says what happened; nothing is lost."""

import math
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.checkpoints import read_checkpoint
from diffsampler.losses import TrajectoryBalance
from targets import Gaussian

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def spike(x: torch.Tensor) -> torch.Tensor:
    """|x|^(-0.4) exp(-x^2): infinite at 0, with integral Gamma(0.3); its square is integrable too."""
    return -0.4 * x.abs().log().sum(-1) - x.square().sum(-1)


@pytest.mark.parametrize("parts", [{}, {"grid": 20}], ids=["alone", "DGFS, which starts in the singularity"])
def test_a_density_with_a_singularity(parts: dict) -> None:
    # 4.5 of its own standard errors, a false alarm of 7e-6; they are 0.01 to 0.08 here. The weights' Pareto shape is
    # 0.4, known from 20 000 draws to 0.06: below the 0.7 that leaves an interval.
    log_z = math.lgamma(0.3)
    sampler = Sampler(FunctionTarget(spike, dim=1, log_z=log_z), **parts)
    fit(sampler, max_steps=150, steps_per_epoch=75, lr=3e-3, tolerance=0, **QUIET)
    assert all(parameter.isfinite().all() for parameter in sampler.parameters())
    estimate = sampler.estimate_log_z(20_000, seed=0)
    error = (estimate.log_z - estimate.low) / 1.96
    assert abs(estimate.log_z - log_z) < 4.5 * error < 0.5, estimate


def raising_now_and_then(times: int) -> FunctionTarget:
    """A Gaussian whose code fails at its last call of `times`, as a flaky simulator would."""
    calls = [0]

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == times:
            raise TimeoutError("the simulator did not answer")
        return -x.square().sum(-1)

    return FunctionTarget(log_prob, dim=2)


def test_an_energy_that_raises_once_loses_no_checkpoint(tmp_path: Path) -> None:
    options = {"enable_checkpointing": True, "default_root_dir": str(tmp_path), "logger": False, **QUIET}
    sampler = Sampler(raising_now_and_then(100), grid=5)
    with pytest.raises((InputError, TimeoutError), match="the simulator did not answer"):
        fit(sampler, max_steps=30, steps_per_epoch=5, **options)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    step = read_checkpoint(checkpoint)["global_step"]
    assert 5 <= step < 30
    again = Sampler(FunctionTarget(lambda x: -x.square().sum(-1), dim=2), grid=5)
    assert len(fit(again, max_steps=30, steps_per_epoch=5, ckpt_path=str(checkpoint), **options)) == 6


FULL_DISK = """
import resource
from diffsampler.behaviours import OnPolicy
from diffsampler.cli import main

class Filling(OnPolicy):
    def paths(self, sampler, n, generator, progress):
        if progress > 0.4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        return super().paths(sampler, n, generator, progress)

if __name__ == "__main__":
    main(["fit", "--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", "--model.behaviour=full.Filling",
          "--model.grid=4", "--trainer.max_steps=6", "--data.steps_per_epoch=2", "--data.batch_size=16",
          "--data.num_eval_samples=50", "--trainer.enable_progress_bar=false", "--report.figures=false",
          "--trainer.accelerator=cpu"])
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="files cannot be limited here")
def test_a_full_disk_ends_in_one_sentence_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(FULL_DISK)
    done = subprocess.run([sys.executable, "full.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: the system refused to write" in done.stderr and "--ckpt_path" in done.stderr
    checkpoints = tmp_path / "runs/Gaussian/version_0/checkpoints"
    assert read_checkpoint(checkpoints / "last.ckpt")["global_step"] == 2


class Exploding(TrajectoryBalance):
    """A loss that training follows to where every weight is useless, though finite."""

    def forward(self, trajectory: object) -> torch.Tensor:
        return -super().forward(trajectory)


def test_a_collapse_in_finite_numbers_is_named() -> None:
    sampler = Sampler(Gaussian(mean=[1.0, -1.0]), grid=5)
    with pytest.warns(UserWarning, match="the ELBO has fallen from .* training has diverged.*best.ckpt.*Lower lr"):
        history = fit(sampler, max_steps=100, steps_per_epoch=10, lr=1e-1, loss=Exploding(), **QUIET)
    assert len(history) == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(Sampler(Gaussian(mean=[1.0, -1.0]), grid=5), max_steps=20, steps_per_epoch=5, **QUIET)
