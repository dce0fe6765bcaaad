"""Two processes from the command line: they share the work, not the noise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffsampler.cli import main

ROOT = Path(__file__).parents[1]
RUN = Path("runs/Gaussian/version_0")
CHECKPOINT = str(RUN / "checkpoints/last.ckpt")
FIT = ["fit", "--model.target=Gaussian", "--model.target.mean=[1.0,-0.5]", "--model.grid=5"]
FIT += ["--model.behaviour=SequentialMonteCarlo", "--trainer.max_steps=6", "--data.steps_per_epoch=3"]
FIT += ["--data.batch_size=16", "--data.num_eval_samples=101", "--data.num_test_samples=201", "--report.figures=false"]
TEST = ["test", f"--ckpt_path={CHECKPOINT}", "--data.num_test_samples=4001", "--report.figures=false"]
# Each command's `results.json`, by the name of what it is for.
RANKS = """
import json, os, pathlib, shutil
from diffsampler.cli import main

for name, *arguments in json.loads(pathlib.Path("commands.json").read_text()):
    if name == "more":
        spent = json.loads(pathlib.Path("fitted.json").read_text())["num_target_evaluations"]
        arguments.append(f"--model.max_target_evaluations={spent + 3000}")
    main([*arguments, "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
          "--trainer.devices=2", "--trainer.strategy=ddp"])
    if os.environ["LOCAL_RANK"] == "0" and name != "predicted":
        folder = {"fitted": "version_0", "tested": "version_0/test", "more": "version_1"}[name]
        shutil.copy(f"runs/Gaussian/{folder}/results.json", f"{name}.json")
"""


def launch(folder: Path, *command: str) -> None:
    """One launch; Lightning starts the second rank by the same command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *command]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, cwd=folder)
    assert result.returncode == 0, result.stderr[-3000:]


def launch_all(folder: Path, commands: list[list[str]]) -> dict[str, dict]:
    """Several commands by one launch: the results of each, by its name."""
    (folder / "ranks.py").write_text(RANKS)
    (folder / "commands.json").write_text(json.dumps(commands))
    launch(folder, "ranks.py")
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json") if path.stem != "commands"}


@pytest.mark.slow
def test_two_ranks_fit(working_folder: Path) -> None:
    trained = launch_all(working_folder, [["fitted", *FIT]])["fitted"]
    # 101 and 201 draws in two equal shares.
    assert trained["last_evaluations"]["count"] == 2 and trained["num_samples"] == 201
    assert [path.name for path in Path("runs/Gaussian").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_two_ranks_fit_test_and_predict(working_folder: Path) -> None:
    more = ["fit", f"--ckpt_path={CHECKPOINT}", "--trainer.max_steps=200", "--data.num_test_samples=11"]
    predict = ["predict", f"--ckpt_path={CHECKPOINT}", "--data.num_predict_samples=3001"]
    commands = [["fitted", *FIT], ["tested", *TEST], ["more", *more, "--report.figures=false"], ["predicted", *predict]]
    results = launch_all(working_folder, commands)
    trained, both, resumed = (results[name] for name in ("fitted", "tested", "more"))
    assert {path.name for path in Path("runs/Gaussian").iterdir()} == {"version_0", "version_1"}
    # 101 and 201 draws in two equal shares.
    assert trained["last_evaluations"]["count"] == 2 and trained["num_samples"] == 201

    main([*TEST, "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"])
    one = json.loads((RUN / "test/results.json").read_text())
    assert (both["num_samples"], one["num_samples"]) == (4002, 4001)
    # Six states of each draw, on whichever rank, and sixteen that each asks for in float64.
    assert both["num_target_evaluations"] - one["num_target_evaluations"] == 6 + 16
    assert both["log_z"] != one["log_z"]
    # The same estimate in distribution: 4.5 standard errors each way, 1e-5 for both.
    for estimate in (both, one):
        assert abs(estimate["log_z"]) < 4.5 / 1.96 * (estimate["high"] - estimate["log_z"])
    assert 0.8 < (both["high"] - both["low"]) / (one["high"] - one["low"]) < 1.25

    # A budget of both ranks together, of which the checkpoint's share counts: they stop at the same step.
    spent = trained["num_target_evaluations"]
    # Two batches of 16 trajectories of six states, twice where they are resampled, and validations of 102.
    assert 6 < resumed["step"] < 25 and resumed["num_target_evaluations"] < spent + 3000 + 2000

    samples = np.load(RUN / "samples.npz")
    assert samples["x"].shape == (3002, 2) and samples["log_weight"].shape == (3002,)
    assert len(np.unique(samples["x"], axis=0)) == 3002


@pytest.mark.slow  # the test above launches two by a script
def test_the_command_itself_launches_its_ranks(tmp_path: Path) -> None:
    ranks = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    launch(tmp_path, "-m", "diffsampler.cli", *FIT, *ranks, "--trainer.enable_progress_bar=false")
    assert [path.name for path in (tmp_path / "runs/Gaussian").iterdir()] == ["version_0"]
    assert json.loads((tmp_path / RUN / "results.json").read_text())["num_samples"] == 201
