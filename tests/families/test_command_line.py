"""Families from the command line."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_mean

from diffsampler.cli import main

CONFIG = """
model:
  target:
    class_path: Tempered
    init_args:
      target: {class_path: Gaussian, init_args: {mean: [0.5, -0.5], covariance: 0.5}}
      low: 0.5
      high: 2.0
  process: VariancePreserving
  control: FourierMLP
  flow: null
  loss: LogVariance
  grid: 4
data: {batch_size: 64, steps_per_epoch: 2, num_eval_samples: 64, num_test_samples: 200}
trainer: {max_steps: 2, default_root_dir: ROOT}
"""


def test_a_run_of_a_family_leaves_a_curve(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = working_folder / "tempered.yaml"
    file.write_text(CONFIG.replace("ROOT", str(working_folder)))
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(file), "--report.contexts=[]"])
    assert "contexts must be a list of contexts, one at least" in capsys.readouterr().err
    main(["fit", "--config", str(file), "--report.contexts", "[[0.0], [0.5]]"])
    (results,) = working_folder.rglob("results.json")
    points = json.loads(results.read_text())["curve"]["points"]
    assert [point["context"] for point in points] == [[0.0], [0.5]]
    assert (results.parent / "log_z_curve.png").is_file()
    assert "log beta" in capsys.readouterr().out


def test_predict_draws_of_the_density_that_is_asked_for(
    working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = working_folder / "tempered.yaml"
    file.write_text(CONFIG.replace("ROOT", str(working_folder)))
    asked = ["predict", "--config", str(file), "--data.num_predict_samples=4000"]
    with pytest.raises(SystemExit):
        main(asked)
    assert "--samples.context='[...]': log beta" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*asked, "--samples.context=[0.0, 1.0]"])
    assert "1 finite number " in capsys.readouterr().err
    main([*asked, "--samples.context=[0.5]"])
    (samples,) = working_folder.rglob("samples.npz")
    drawn = np.load(samples)
    assert drawn["x"].shape == (4000, 2)
    # A normal density to the power of beta has Z = (2 pi 0.5)^(1 - beta) / beta in the plane; 7e-6.
    beta = math.exp(0.5)
    assert_mean(torch.from_numpy(np.exp(drawn["log_weight"])), math.pi ** (1 - beta) / beta, "mean weight")


def test_one_density_has_no_context_to_draw_at(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--model.target=Funnel", "--samples.context=[0.5]", "--data.num_predict_samples=10"])
    assert "Funnel is one density" in capsys.readouterr().err


def test_a_misspelt_family_is_named(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model.target=Temperd", "--trainer.max_steps=1"])
    assert "did you mean Tempered" in capsys.readouterr().err


SIMULATED = """
from torch.distributions import Independent, Normal
import torch

from diffsampler.families import Simulated


class Noisy(Simulated):
    def __init__(self):
        super().__init__(Independent(Normal(torch.zeros(2), 1.0), 1), lambda x: x + 0.5 * torch.randn_like(x))
"""


def test_simulations_alone_are_trained_tested_and_drawn_from(
    working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (working_folder / "noisy_by_simulation.py").write_text(SIMULATED)
    small = ["--data.steps_per_epoch=2", "--data.batch_size=32", "--data.num_eval_samples=64"]
    main(["fit", "--model.target=noisy_by_simulation.Noisy", "--trainer.max_steps=4", "--seed_everything=0", *small])
    assert "log-likelihood of fresh simulations, at least" in capsys.readouterr().out
    (results,) = working_folder.rglob("results.json")
    found = json.loads(results.read_text())
    assert found["step"] == 4 and found["standard_error"] > 0
    checkpoint = str(next(working_folder.rglob("best.ckpt")))
    again = ["--config", str(next(working_folder.rglob("config.yaml"))), "--ckpt_path", checkpoint]
    main(["test", *again, "--data.num_test_samples=64"])
    assert "log-likelihood of fresh simulations" in capsys.readouterr().out
    main(["predict", *again, "--samples.context=[0.5, -1.0]", "--data.num_predict_samples=20"])
    with np.load(next(working_folder.rglob("samples.npz"))) as drawn:
        assert drawn["x"].shape == (20, 2) and "log_weight" not in drawn
