"""Two processes from the command line: they share the work, not the noise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RUN = Path("runs/Gaussian/version_0")
FIT = ["--model.target=Gaussian", "--model.target.mean=[1.0,-0.5]", "--model.grid=5"]
FIT += ["--model.behaviour=SequentialMonteCarlo", "--trainer.max_steps=6", "--data.steps_per_epoch=3"]
FIT += ["--data.batch_size=16", "--data.num_eval_samples=101", "--data.num_test_samples=201", "--report.figures=false"]


def diffsampler(folder: Path, *arguments: str, ranks: int = 2) -> None:
    command = [sys.executable, "-m", "diffsampler.cli", *arguments, "--trainer.accelerator=cpu"]
    command += ["--trainer.enable_progress_bar=false", f"--trainer.devices={ranks}", "--trainer.strategy=ddp"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, cwd=folder)
    assert result.returncode == 0, result.stderr[-3000:]


def test_two_ranks_fit_test_and_predict(tmp_path: Path) -> None:
    diffsampler(tmp_path, "fit", *FIT)
    assert [path.name for path in (tmp_path / "runs/Gaussian").iterdir()] == ["version_0"]
    # 101 and 201 draws in two equal shares.
    trained = json.loads((tmp_path / RUN / "results.json").read_text())
    assert trained["last_evaluations"]["count"] == 2 and trained["num_samples"] == 201

    checkpoint = str(tmp_path / RUN / "checkpoints/last.ckpt")
    estimates = []
    for ranks in (2, 1):
        arguments = ["--data.num_test_samples=4001", "--report.figures=false"]
        diffsampler(tmp_path, "test", "--ckpt_path", checkpoint, *arguments, ranks=ranks)
        estimates.append(json.loads((tmp_path / RUN / "results.json").read_text()))
    both, one = estimates
    assert (both["num_samples"], one["num_samples"]) == (4002, 4001)
    # Six states of each draw, on whichever rank, and sixteen that each asks for in float64.
    assert both["num_target_evaluations"] - one["num_target_evaluations"] == 6 + 16
    assert both["log_z"] != one["log_z"]
    # The same estimate in distribution: 4.5 standard errors each way, 1e-5 for both.
    for estimate in estimates:
        assert abs(estimate["log_z"]) < 4.5 / 1.96 * (estimate["high"] - estimate["log_z"])
    assert 0.8 < (both["high"] - both["low"]) / (one["high"] - one["low"]) < 1.25

    # A budget of both ranks together, of which the checkpoint's share counts: they stop at the same step.
    spent = trained["num_target_evaluations"]
    more = ["--trainer.max_steps=200", f"--model.max_target_evaluations={spent + 3000}", "--data.num_test_samples=11"]
    diffsampler(tmp_path, "fit", "--ckpt_path", checkpoint, *more, "--report.figures=false")
    resumed = json.loads((tmp_path / "runs/Gaussian/version_1/results.json").read_text())
    # Two batches of 16 trajectories of six states, twice where they are resampled, and validations of 102.
    assert 6 < resumed["step"] < 25 and resumed["num_target_evaluations"] < spent + 3000 + 2000

    diffsampler(tmp_path, "predict", "--ckpt_path", checkpoint, "--data.num_predict_samples=3001")
    samples = np.load(tmp_path / RUN / "samples.npz")
    assert samples["x"].shape == (3002, 2) and samples["log_weight"].shape == (3002,)
    assert len(np.unique(samples["x"], axis=0)) == 3002
