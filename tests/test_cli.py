"""The command line, in-process, with one subprocess smoke test."""

import csv
import json
import subprocess
import sys
from importlib.util import find_spec
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


pytestmark = pytest.mark.usefixtures("working_folder")


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
    assert {
        "samples.png",
        "marginals.png",
        "training.png",
        "log_weights.png",
        "estimates.png",
        "balance.png",
    } <= written
    assert "true log Z" in capsys.readouterr().out

    checkpoint = str(run / "checkpoints" / "last.ckpt")
    fitted = (run / "results.json").read_text()
    main(["test", "--ckpt_path", checkpoint, "--data.num_test_samples=70", "--trainer.accelerator=cpu"])
    assert (run / "results.json").read_text() == fitted and (run / "test/samples.png").exists()
    results = json.loads((run / "test/results.json").read_text())
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


@pytest.mark.slow
def test_the_upper_bound_says_whether_it_is_approximate(capsys):
    data = ["--model.target.design=[[1.0,0.2],[0.3,-1.0],[1.2,0.4]]", "--model.target.labels=[1,0,1]"]
    target = ["--model.target=LogisticRegression", *data, "--report.figures=false"]
    main(["fit", *target, *SMALL])
    results = json.loads(Path("runs/LogisticRegression/version_0/results.json").read_text())
    assert not results["diagnostics"].keys() & {"eubo", "eubo_approximate"}
    main(["fit", *target, *SMALL, "--report.reference=true"])
    results = json.loads(Path("runs/LogisticRegression/version_1/results.json").read_text())
    assert results["diagnostics"]["eubo_approximate"] > results["elbo"] and "eubo" not in results["diagnostics"]
    assert any("rolled back" in reason for reason in results["verdict"]["reasons"])
    assert "eubo approximate: " in capsys.readouterr().out


def test_the_averaged_weights_are_what_test_uses(capsys):
    main(["fit", "--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", "--report.figures=false", *SMALL])
    run = Path("runs/Gaussian/version_0")
    fitted = json.loads((run / "results.json").read_text())
    main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--report.figures=false"])
    tested = json.loads((run / "test/results.json").read_text())
    # `fit` ends on the averaged weights and `test` draws with the same seed, so the figures agree to the last digit.
    assert fitted.pop("checkpoint") is None and tested.pop("checkpoint").endswith("last.ckpt")
    assert "max_steps" in fitted.pop("ended") and tested.pop("ended") is None  # a test ends no training
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
        "from diffsampler.losses import TrajectoryLoss\n"
        "class Absolute(TrajectoryLoss):\n"
        "    def forward(self, trajectory):\n"
        "        return (trajectory.log_weight - trajectory.log_z).abs().mean()\n"
    )
    main(["fit", "--model.target=my_target.Tilted", "--model.target.tilt=2", "--model.loss=my_loss.Absolute", *SMALL])
    assert Path("runs/Tilted/version_0/results.json").exists()


NEEDS_OPENMM = [pytest.mark.adapters, pytest.mark.skipif(not find_spec("openmm"), reason="needs the extra molecules")]
CONFIGS = [
    pytest.param(name, marks=NEEDS_OPENMM if name == "alanine_dipeptide.yaml" else ())
    for name in sorted(path.name for path in EXAMPLES.glob("*.yaml"))
]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_every_shipped_config_runs(config, capsys):
    main(["fit", "--config", str(EXAMPLES / config), "--report.figures=false", *SMALL, "--trainer.max_steps=2"])
    assert "log Z" in capsys.readouterr().out


def test_every_target_has_a_config():
    import targets

    molecules = {"ASETarget", "ForceFieldTarget", "OpenMMTarget"}  # of molecules of the user's: docs/molecules.md
    configured = {
        (c["class_path"] if isinstance(c := yaml.safe_load(path.read_text())["model"]["target"], dict) else c)
        for path in EXAMPLES.glob("*.yaml")
    }
    assert set(targets.__all__) <= configured | {"CoxProcess"} | molecules  # examples/cox_process.py


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
        (["--model.target=Funnel", "--model.target.dim=three"], ["model.target.dim: expected int, got 'three'"]),
        (
            ["--model.target=Funnel", "--model.process=PinnedBrownian", "--model.process.sigma=two"],
            ["model.process.sigma: expected float or a list of float, got 'two'"],
        ),
        (["--model.target=Gaussian", "--model.target.mean=0"], ["model.target.mean: expected a list of float"]),
        (["--model.target=Funnel", "--model.loss.lamda=1"], ["name a class before its argument 'lamda'"]),
        (["--model.target=Funnel", "--model.control.width=3"], ["name a class before its argument 'width'"]),
        (
            ["--model.target=Funnel", "--model.control=LangevinControl", "--model.control.network=Forier"],
            ["model.control.network: unknown name 'Forier'", "FourierMLP"],
        ),
        (["--model.target=GaussianMixture9", "--model.target.dim=3"], ["it takes no arguments"]),
        (["--model.target=Funnel", "--model.flow=none"], ["model.flow: unknown name 'none'", "ForwardLookingFlow"]),
        (["--model.target=Funnel", "--model.grid=10.5"], ["model.grid: expected Grid or int, got '10.5'"]),
        (["--model.target=Funnel", "--mode.lr=1"], ["--mode.lr", "accepted are trainer, model, data"]),
        (["--model.target=Funnel", "--model.compil=true"], ["--model.compil", "accepted are"]),
        (["--model.target=Funnel", "--model.seed=3"], ["--model.seed"]),
        (["--model.target=Funnel", "--seed_everything=-1"], ["seed_everything must be", "-1"]),
        (
            ["--model.target=Funnel", "--model.behaviour=Replay", "--model.behaviour.priority=Rank"],
            ["model.behaviour.priority: unknown name 'Rank'", "RankPriority"],
        ),
        ([], ["required", "model.target"]),
        # Of these, before any search.
        (["--model.target=Gaussian", "--model.target.mean=[0.0]", "--trainer.max_steps=0"], ["max_steps must be", "0"]),
        (["--model.target=Gaussian", "--model.target.mean=[0.0]", "--trainer.max_epochs=0"], ["max_epochs must be"]),
        (["--model.target=Gaussian", "--model.target.mean=[0.0]", "--trainer.precision=16-mixed"], ["32-true"]),
        (["--model.target=Gaussian", "--model.target.mean=[0.0]", "--trainer.precision=bf16-mixed"], ["32-true"]),
        (["--model.target=Gaussian", "--model.target.mean=[0.0]", "--data.batch_size=1"], ["batch_size must be"]),
        (
            ["--model.target=Funnel", "--model.grid=4", "--model.max_target_evaluations=10"],
            ["max_target_evaluations must be at least", "got 10"],
        ),
    ],
)
def test_mistakes_end_in_one_line(args, parts, capsys, monkeypatch):
    monkeypatch.setattr("diffsampler.sampler.Sampler.search", lambda *_: pytest.fail("a search was made"))
    message = error_of(capsys, "fit", *args)
    for part in parts:
        assert part in message


def test_only_targets_that_a_command_line_can_make_are_offered(capsys):
    import targets

    message = error_of(capsys, "fit", "--model.target=Funel")
    offered = message.partition("Accepted: ")[2].partition(", or the dotted path")[0].split(", ")
    assert sorted(offered) == sorted([*targets.__all__, "StanModel", "Tempered"])


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


def test_the_truth_is_reported_beside_the_estimate(capsys):
    main(["fit", "--model.target=DoubleWell", "--report.figures=false", *SMALL, "--trainer.max_steps=3"])
    run = Path("runs/DoubleWell/version_0")
    results = json.loads((run / "results.json").read_text())
    assert results["true_log_z"] == pytest.approx(-0.541056, abs=1e-6)
    assert results["step"] == 3  # not a multiple of the two steps between validations
    assert results["last_evaluations"]["count"] == 2
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/log_z"]]
    for row in rows:
        assert float(row["val/log_z_error"]) == pytest.approx(float(row["val/log_z"]) + 0.541056, abs=1e-5)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["gradient_clip_val"] == 1.0
    assert (config["best_checkpoint"]["monitor"], config["best_checkpoint"]["mode"]) == ("val/elbo", "max")


@pytest.mark.slow
def test_the_seed_is_that_of_all_noise(capsys):
    for seed in (1, 2):
        main(["fit", "--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", f"--seed_everything={seed}", *SMALL])
    checkpoints = [f"runs/Gaussian/version_{k}/checkpoints/last.ckpt" for k in (0, 1)]
    first, second = (torch.load(path, weights_only=True)["generators"][0] for path in checkpoints)
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_the_checkpoint_asked_for_is_the_one_used(capsys):
    gaussian = ["--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", "--report.figures=false"]
    main(["fit", *gaussian, *SMALL])
    old = "runs/Gaussian/version_0/checkpoints/last.ckpt"
    main(["fit", "--ckpt_path", old, "--trainer.max_steps=6", "--report.figures=false"])
    new = Path("runs/Gaussian/version_1")
    # A resumed run's config must not send later uses back to the checkpoint that it came from.
    assert "ckpt_path" not in yaml.safe_load((new / "config.yaml").read_text())
    for order in (0, 1):
        args = [["--ckpt_path", str(new / "checkpoints/last.ckpt")], ["--config", str(new / "config.yaml")]]
        main(["test", *args[order], *args[1 - order], "--report.figures=false"])
        results = json.loads((new / "test/results.json").read_text())
        assert results["step"] == 6 and "version_1" in results["checkpoint"]
    message = error_of(capsys, "fit", "--ckpt_path", old)
    assert "at step 4 already" in message
    message = error_of(capsys, "test", "--ckpt_path", old, "--model.control=FourierMLP")
    assert "made otherwise: control was LangevinControl" in message
    # A loss without a flow goes on from a run with one.
    main(["fit", "--ckpt_path", old, "--trainer.max_steps=5", "--model.loss=TrajectoryBalance"])


def test_a_config_of_the_user_is_not_written_over(capsys):
    text = "# mine\nmodel:\n  target: Funnel\ntrainer:\n  logger: false\n"
    Path("config.yaml").write_text(text)
    main(["fit", "--config=config.yaml", "--report.figures=false", *SMALL])
    assert Path("config.yaml").read_text() == text


def test_a_checkpoint_without_its_run_folder(capsys):
    main(["fit", "--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", "--report.figures=false", *SMALL])
    Path("moved.ckpt").write_bytes(Path("runs/Gaussian/version_0/checkpoints/last.ckpt").read_bytes())
    assert "no run folder" in error_of(capsys, "test", "--ckpt_path=moved.ckpt")
    main(["test", "--ckpt_path=moved.ckpt", "--config=runs/Gaussian/version_0/config.yaml", "--report.figures=false"])
    assert "must be a checkpoint file" in error_of(capsys, "fit", "--model.target=Funnel", "--ckpt_path=last")


def test_untrained_weights_are_called_so(capsys):
    main(["test", "--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", "--report.figures=false", *SMALL])
    assert "before any training" in capsys.readouterr().out


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


def test_reference_prints_and_writes_log_z(capsys):
    main(["reference", "--target", "Gaussian", "--target.mean=[30.0, -1.0]", "--output=r.json", "--num_particles=500"])
    output = capsys.readouterr().out
    assert "true log Z" in output and "Pareto khat" in output and "95 % interval" in output
    results = json.loads(Path("r.json").read_text())
    # 4.5 standard errors, 7e-6.
    assert abs(results["log_z"]) < 4.5 * (results["high"] - results["low"]) / 3.92
    assert results["target"] == "Gaussian" and results["khat"] < 0.5 and results["unseen"] < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target=Funel"], "unknown name 'Funel'"),
        (["--target=Funnel", "--num_particles=5"], "num_particles must be"),
        (["--target=Funnel", "--output=nowhere/r.json"], "output must be a file in a folder that exists"),
        (["--target=Funnel", "--particles=5"], "unrecognized argument --particles"),
        (["--target=Funnel", "--num_part=500"], "unrecognized argument --num_part"),
    ],
)
def test_reference_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reference", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["refernce", "--target=Funnel"], ["Funnel"]])
def test_commands_are_named(arguments, capsys):
    assert "one of fit, validate, test, predict, reference" in error_of(capsys, *arguments)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_checkpoint_is_asked_for(command, capsys):
    assert "--ckpt_path=runs/" in error_of(capsys, command)


@pytest.mark.parametrize(("option", "meant"), [("tolerance", "model.tolerance"), ("max_steps", "trainer.max_steps")])
def test_the_group_of_an_option_is_named(option, meant, capsys):
    assert f"did you mean --{meant}?" in error_of(capsys, "fit", "--model.target=Funnel", f"--{option}=1")


def truncated(checkpoint: Path) -> bytes:
    return checkpoint.read_bytes()[:20_000]


def pickled_module(checkpoint: Path) -> bytes:
    torch.save(torch.nn.Linear(2, 2), checkpoint)
    return checkpoint.read_bytes()


def saved_list(checkpoint: Path) -> bytes:
    torch.save([1, 2], checkpoint)
    return checkpoint.read_bytes()


@pytest.mark.slow
def test_damaged_and_foreign_checkpoints_end_in_one_line(capsys):
    main(["fit", "--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", "--report.figures=false", *SMALL])
    checkpoint = Path("runs/Gaussian/version_0/checkpoints/last.ckpt")
    contents = [truncated(checkpoint), b"", b"hello", pickled_module(checkpoint), saved_list(checkpoint)]
    for command in ("fit", "test", "predict"):
        for content in contents:
            checkpoint.write_bytes(content)
            message = error_of(capsys, command, "--ckpt_path", str(checkpoint))
            assert "is damaged or no checkpoint" in message or "was not written by diffsampler" in message


def test_predict_says_that_nothing_was_trained(capsys):
    arguments = ["--model.target=Gaussian", "--model.target.mean=[1.0,2.0]", "--data.num_predict_samples=20"]
    main(["predict", *arguments, "--model.grid=4", "--trainer.accelerator=cpu"])
    assert "weights before any training" in capsys.readouterr().out


def test_early_stopping_of_the_documentation_waits_for_the_interval():
    page = (EXAMPLES.parent / "docs" / "running.md").read_text()
    (block,) = (part for part in page.split("```yaml\n")[1:] if "EarlyStopping" in part)
    Path("stop.yaml").write_text(block.split("```")[0].replace("0.05", "1000.0"))
    small = [argument for argument in SMALL if "max_steps" not in argument]
    arguments = ["--model.target=Gaussian", "--model.target.mean=[0.5]", "--config=stop.yaml", "--report.figures=false"]
    main(["fit", *arguments, "--trainer.max_steps=20", *small])
    assert json.loads(Path("runs/Gaussian/version_0/results.json").read_text())["step"] == 2


@pytest.mark.slow
def test_outside_of_a_terminal_progress_is_lines(capsys):
    small = [part for part in SMALL if "enable_progress_bar" not in part]
    arguments = ["--model.target=Gaussian", "--model.target.mean=[0.5]", "--model.grid=3", *small]
    main(["fit", *arguments])
    written = capsys.readouterr()
    assert "\r" not in written.out + written.err and "Step " in written.err
    config = yaml.safe_load(next(Path("runs").rglob("config.yaml")).read_text())
    assert config["trainer"]["enable_progress_bar"] is None  # a terminal shows a bar when the run is resumed there
    bar = ["--trainer.callbacks=lightning.pytorch.callbacks.TQDMProgressBar"]
    for more, painted in ((["--trainer.enable_progress_bar=false"], False), (bar, True)):
        main(["fit", *arguments, *more])
        written = capsys.readouterr()
        assert ("\r" in written.out + written.err) == painted and "Step " not in written.err
