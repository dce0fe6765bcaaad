"""The command line, in-process, with one subprocess smoke test."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from diffsampler.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = [
    "--trainer.max_steps=4",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--data.steps_per_epoch=2",
    "--data.batch_size=8",
    "--data.num_eval_samples=50",
    "--data.num_test_samples=60",
    "--model.grid=4",
]


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def error_of(capsys, *args):
    """The one line on stderr that a mistake ends in."""
    with pytest.raises(SystemExit) as stop:
        main([*args])
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line or "Traceback" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("diffsampler: error: ")
    return lines[0].removeprefix("diffsampler: error: ")


def test_fit_test_predict_validate(capsys):
    main(["fit", "--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", *SMALL])
    run = Path("runs/Gaussian/version_0")
    written = {path.name for path in run.iterdir()}
    assert {"config.yaml", "metrics.csv", "results.json", "checkpoints"} <= written
    assert {"samples.png", "marginals.png", "training.png", "log_weights.png", "balance.png"} <= written
    assert "true log Z" in capsys.readouterr().out

    checkpoint = str(run / "checkpoints" / "last.ckpt")
    (run / "results.json").unlink()
    main(["test", "--ckpt_path", checkpoint, "--data.num_test_samples=70", "--trainer.accelerator=cpu"])
    results = json.loads((run / "results.json").read_text())
    fields = {"log_z", "low", "high", "elbo", "ess", "khat", "num_samples", "num_target_evaluations", "warnings"}
    assert fields | {"true_log_z"} <= results.keys()
    assert results["num_samples"] == 70
    assert results["true_log_z"] == 0
    assert results["step"] == 4

    main(["predict", "--ckpt_path", checkpoint, "--data.num_predict_samples=30", "--data.chunk_size=12"])
    samples = np.load(run / "samples.npz")
    assert samples["x"].shape == (30, 2)
    assert samples["log_weight"].shape == (30,)
    assert len(np.unique(samples["log_weight"])) == 30

    main(["validate", "--ckpt_path", checkpoint])
    assert not Path("runs/Gaussian/version_1").exists()


def test_the_averaged_weights_are_what_test_uses(capsys):
    main(["fit", "--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", "--report.figures=false", *SMALL])
    run = Path("runs/Gaussian/version_0")
    fitted = json.loads((run / "results.json").read_text())
    main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--report.figures=false"])
    tested = json.loads((run / "results.json").read_text())
    # `fit` ends on the averaged weights and `test` draws with the same seed, so the figures agree to the last digit.
    assert {**tested, "num_target_evaluations": 0} == {**fitted, "num_target_evaluations": 0}


def test_classes_in_the_working_folder(capsys):
    Path("my_target.py").write_text(
        "from diffsampler import Target\n"
        "class Tilted(Target):\n"
        "    def __init__(self, tilt: float = 1.0):\n"
        "        super().__init__(2)\n"
        "        self.tilt = tilt\n"
        "    def log_prob(self, x):\n"
        "        return self.tilt * x[..., 0] - x.square().sum(-1)\n"
    )
    Path("my_loss.py").write_text(
        "from diffsampler.losses import Loss\n"
        "class Absolute(Loss):\n"
        "    def forward(self, trajectory):\n"
        "        return (trajectory.log_weight - trajectory.log_z).abs().mean()\n"
    )
    main(["fit", "--model.target=my_target.Tilted", "--model.target.tilt=2", "--model.loss=my_loss.Absolute", *SMALL])
    assert Path("runs/Tilted/version_0/results.json").exists()


@pytest.mark.parametrize("config", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_every_shipped_config_runs(config, capsys):
    main(["fit", "--config", str(EXAMPLES / config), "--report.figures=false", *SMALL, "--trainer.max_steps=2"])
    assert "log Z" in capsys.readouterr().out


def test_every_target_has_a_config():
    import targets

    configured = {
        (c["class_path"] if isinstance(c := yaml.safe_load(path.read_text())["model"]["target"], dict) else c)
        for path in EXAMPLES.glob("*.yaml")
    }
    assert set(targets.__all__) <= configured


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--model.target=Funel"], ["model.target", "'Funel'", "Funnel", "ManyWell"]),
        (["--model.target=nowhere.Mine"], ["model.target", "nowhere.Mine", "No module named"]),
        (["--model.target=Funnel", "--model.loss=SubTB"], ["model.loss", "'SubTB'", "SubTrajectoryBalance"]),
        (["--model.target=Funnel", "--model.target.sclae=1"], ["sclae", "accepted are dim, scale"]),
        (["--model.target=Funnel", "--model.los=TB"], ["--model.los", "model.loss"]),
        (["--model.target=Funnel", "--trainer.max_steps=many"], ["trainer.max_steps", "int", "many"]),
        (["--model.target=Funnel", "--model.target.dim=-2"], ["dim must be", "-2"]),
        (["--model.target=Funnel", "--model.grid=0"], ["num_steps must be", "0"]),
        (["--model.target=Funnel", "--model.lr=-1"], ["lr must be positive", "-1"]),
        (
            ["--model.target=Funnel", "--model.process=PinnedBrownian", "--model.process.sigma=-1"],
            ["sigma must be positive", "-1"],
        ),
        (["--model.target=Funnel", "--model.flow=null"], ["SubTrajectoryBalance needs a flow", "flow=None"]),
        (["--model.target=Funnel", "--data.batch_size=0"], ["batch_size must be", "0"]),
        (["--model.target=Funnel", "--ema.decay=1.5"], ["decay must be", "1.5"]),
        (["--config=missing.yaml"], ["config", "missing.yaml"]),
        ([], ["required", "model.target"]),
    ],
)
def test_mistakes_end_in_one_line(args, parts, capsys):
    message = error_of(capsys, "fit", *args)
    for part in parts:
        assert part in message


def test_a_misspelt_key_in_a_config(capsys):
    Path("bad.yaml").write_text("model:\n  target:\n    class_path: Funnel\n    init_args:\n      dimm: 3\n")
    assert "'dimm' is not accepted; accepted are dim, scale" in error_of(capsys, "fit", "--config=bad.yaml")
    Path("bad.yaml").write_text("model:\n  targt: Funnel\n")
    message = error_of(capsys, "fit", "--config=bad.yaml")
    assert "model.targt" in message
    assert "model.target" in message


def test_a_density_that_is_nan_everywhere(capsys):
    Path("nan_target.py").write_text(
        "from diffsampler import Target\n"
        "class Nan(Target):\n"
        "    def __init__(self):\n"
        "        super().__init__(2)\n"
        "    def log_prob(self, x):\n"
        "        return x.sum(-1) * float('nan')\n"
    )
    assert "Nan.log_prob is NaN at all" in error_of(capsys, "fit", "--model.target=nan_target.Nan", *SMALL)


def test_a_checkpoint_that_is_not_there(capsys):
    message = error_of(capsys, "test", "--model.target=Funnel", "--ckpt_path=nowhere/last.ckpt")
    assert "nowhere/last.ckpt" in message


def test_the_console_script_starts(tmp_path):
    script = Path(sys.executable).parent / "diffsampler"
    command = [str(script), "fit", "--model.target=Funel"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert "unknown name 'Funel'" in result.stderr
    assert "Traceback" not in result.stderr
