"""Benchmarks: what turns runs into the published table, and that each starts."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from diffsampler import InputError
from examples.benchmarks import (
    accuracy,
    calibration,
    families,
    order_preserving,
    physics,
    step_time,
    time_to_accuracy,
    trust_region,
    two_moons,
)
from examples.benchmarks.cost_model import Ceilings, Need, measure_need
from examples.benchmarks.densities import DENSITIES
from targets import U1Gauge

ROOT = Path(__file__).parents[1]


def report(seed: int) -> dict:
    return {
        "true_log_z": 2.0,
        "num_target_evaluations": 1000 + seed,
        "cpu_seconds": 10.0 * (seed + 1),
        "diagnostics": {"min_mode_mass_ratio": 0.8, "max_mode_mass_ratio": 1.1, "eubo": 2.5, "wasserstein2": 0.3},
        "last_evaluations": {
            "count": 5,
            "log_z": 1.9,
            "elbo": 1.5,
            "ess": 0.5,
            "abs_log_z_error": 0.1,
            "elbo_gap": 0.5,
        },
    }


def test_figures_of_a_report() -> None:
    row = accuracy.figures(report(0))
    assert row["abs_log_z_error"] == 0.1 and row["elbo_gap"] == 0.5 and row["ess"] == 0.5
    assert row["eubo_gap"] == pytest.approx(0.5) and row["wasserstein2"] == 0.3
    assert row["worst_mode"] == pytest.approx(0.2)
    wells = {"right_well_mass_min": 0.7, "right_well_mass_max": 0.9, "right_well_mass_truth": 0.84}
    assert accuracy.figures({**report(0), "diagnostics": wells})["worst_mode"] == pytest.approx(0.14)
    unknown = {**report(0), "diagnostics": {}, "last_evaluations": {"elbo": 1.0, "ess": 0.5}, "cpu_seconds": None}
    assert accuracy.figures(unknown) == {"ess": 0.5, "num_target_evaluations": 1000}


def test_table_of_seeds(tmp_path: Path) -> None:
    summary = accuracy.summarise([accuracy.figures(report(seed)) for seed in (0, 1, 2)])
    assert summary["abs_log_z_error"] == "0.100 ± 0.000" and summary["cpu_seconds"] == "20"
    text = accuracy.write_tables(tmp_path, {"run": {"seeds": "3", **summary}})
    assert "| run | 3 | 0.100 ± 0.000 | 0.500" in text
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert rows[0]["seeds"] == "3" and rows[0]["ess"].startswith("0.500")


@pytest.mark.slow
def test_runs_once_and_takes_what_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.benchmarks.accuracy", "--presets", "pis", "--targets", "funnel"]
    command += ["--seeds", "0", "--folder", str(tmp_path), "--budget", "4000"]
    small = ["--data.batch_size=16", "--data.num_eval_samples=30", "--data.num_test_samples=50", "--model.grid=4"]
    small += ["--data.steps_per_epoch=5", "--report.figures=false"]
    first = subprocess.run([*command, *small], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    results = tmp_path / "funnel-pis" / "seed_0" / "results.json"
    written = results.stat().st_mtime_ns
    second = subprocess.run([*command, *small], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert first == second and "funnel-pis" in first and results.stat().st_mtime_ns == written
    wrong = subprocess.run([*command, "--targets", "funel"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "there is no" in wrong.stderr and "funel" in wrong.stderr


@pytest.mark.parametrize("name", list(DENSITIES))
def test_densities_are_what_they_say(name: str, generator: torch.Generator) -> None:
    target = DENSITIES[name]()
    assert f"{target.dim}-d" in name and math.isfinite(target.log_z)
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(7, 3, target.dim, generator=generator).to(dtype)
        log_prob = target.log_prob(x)
        assert log_prob.shape == (7, 3) and log_prob.dtype == dtype and not log_prob.isnan().any()


@pytest.mark.parametrize(("name", "end"), [("Gumbel, 1-d", 14.0), ("two modes, 2-d", 12.0)])
def test_stated_log_z_agrees_with_quadrature(name: str, end: float) -> None:
    target, step = DENSITIES[name](), 0.02
    line = torch.arange(-end, end, step)
    axes = torch.meshgrid(*[line] * target.dim, indexing="ij")
    total = target.log_prob(torch.stack(axes, -1)).flatten().logsumexp(0) + target.dim * math.log(step)
    assert abs(float(total) - target.log_z) < 1e-3


@pytest.mark.parametrize(
    ("name", "start", "end"), [("exponential in a box, 3-d", 0.0, 2.0), ("stairs, 3-d", -100.0, 100.0)]
)
def test_stated_log_z_of_products_agrees_with_quadrature(name: str, start: float, end: float) -> None:
    # Along one of three alike coordinates; midpoints are exact to the edges of the box and of the steps.
    target, step = DENSITIES[name](), 1e-3
    points = torch.full((round((end - start) / step), 3), 0.05)
    centre = target.log_prob(points[0])
    points[:, 0] = start + step * (torch.arange(len(points)) + 0.5)
    factor = (target.log_prob(points) - centre).logsumexp(0) + math.log(step)
    assert abs(float(3 * factor + centre) - target.log_z) < 1e-3


@pytest.mark.slow
def test_calibration_runs_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["calibration", "--seeds", "0", "--densities", "Gumbel, 1-d", "--max_steps", "4"]
    monkeypatch.setattr("sys.argv", [*arguments, "--folder", str(tmp_path)])
    calibration.main()
    first = capsys.readouterr().out
    assert "within 0.1 of the truth" in first and len(list(tmp_path.glob("*.json"))) == 1
    calibration.main()
    assert capsys.readouterr().out == first


@pytest.mark.slow
def test_calibration_by_the_reference_and_of_a_target_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["calibration", "--seeds", "0", "--folder", str(tmp_path), "--reference"]
    monkeypatch.setattr("sys.argv", [*arguments, "--densities", "Gumbel, 1-d"])
    calibration.main()
    said = capsys.readouterr().out
    assert "the 95 % interval holds the truth" in said and calibration.GRADES[0] not in said
    (tmp_path / "brought_for_a_test.py").write_text(OWN_TARGET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.argv", [*arguments, "--target", "brought_for_a_test.Mine"])
    calibration.main()
    assert "log Z: 1.1" in capsys.readouterr().out and len(list(tmp_path.glob("reference/*.json"))) == 2
    for wrong in (["--target", "brought_for_a_test.Yours"], ["--densities", "none"], ["--improper", "--reference"]):
        monkeypatch.setattr("sys.argv", [*arguments, *wrong])
        with pytest.raises(SystemExit):
            calibration.main()


OWN_TARGET = """
from diffsampler import Target


class Mine(Target):
    def __init__(self):
        super().__init__(2)

    def log_prob(self, x):
        return -x.square().sum(-1)
"""


def test_table_of_calibration() -> None:
    run = {"name": "a", "how": "fit", "seed": 0, "true_log_z": 1.0, "refused": None, "log_z": 1.01, "low": 1.0}
    run |= {"high": 1.02, "ess": 0.5, "num_target_evaluations": 1000, "seconds": 3.0, "grade": calibration.GRADES[0]}
    wrong = {**run, "name": "b", "log_z": 2.0, "low": 1.9, "high": 2.1}
    doubtful = {**run, "grade": calibration.GRADES[1]}
    refused = {key: run[key] for key in ("how", "seed", "true_log_z", "seconds")} | {"name": "c", "refused": "No."}
    text = calibration.summarise([run, wrong, doubtful, refused])
    assert "wrong by more than 0.1 and graded trustworthy: 1 of 4 runs" in text
    assert "within 0.1 of the truth: 50% (2 of 4)" in text and "refused: 1" in text
    assert "holds the truth: 50% (1 of 2)" in text and "within 0.05, graded trustworthy: 50% (1 of 2)" in text
    assert "refused: No." in text.split("worst:")[1].splitlines()[1]
    improper = {**refused, "name": "flat ridge, 2-d", "true_log_z": None}
    odd = {**run, "name": "Cauchy, 1-d"}
    assert calibration.refusal_line(improper).endswith("refused: No. [along (1, -1)]")
    text = calibration.summarise_refusals([improper, odd])
    assert "without an integral: refused by fit: 100% (1 of 1)" in text and "refused by fit: 0% (0 of 1)" in text


def test_a_refusal_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise InputError("It has no integral.")

    monkeypatch.setattr(calibration, "reference", refuse)
    run = calibration.Run("flat ridge, 2-d", "reference", 0)
    found = calibration.perform(run, tmp_path)
    assert found["refused"] == "It has no integral." and calibration.perform(run, tmp_path) == found


def test_the_need_of_a_step_is_that_of_its_products() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(8, 4, requires_grad=True), torch.randn(100, 8)
    need = measure_need(lambda: (x @ weight).square().sum().backward())
    # Forward and the gradient of the weight, of 100 x 8 x 4 multiply-adds each; x and the product are kept.
    assert need.flops == 2 * 2 * 100 * 8 * 4
    size = torch.get_default_dtype().itemsize
    assert need.bytes == (100 * 8 + 100 * 4) * size
    assert Need(10, 6).seconds(Ceilings(5.0, 3.0)) == 2.0 + 4.0


@pytest.mark.slow
def test_step_times_and_their_need(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["step_time", "--presets", "dgfs", "pis_lp", "vargrad_lp_ls", "--targets", "funnel", "--json"]
    monkeypatch.setattr("sys.argv", [*arguments, "--repeats", "2", "--threads", "1", "--batch_size", "8"])
    monkeypatch.setattr(step_time, "NUM_DRAWS", 20)
    monkeypatch.setattr(step_time, "peak_memories", lambda cases: {case.name: 0.5 for case in cases})
    step_time.main()
    report = json.loads(capsys.readouterr().out)
    cases = report["threads"]["1"]["cases"]
    assert list(cases) == ["dgfs funnel", "pis_lp funnel", "vargrad_lp_ls funnel"]
    for row in cases.values():
        assert row["measured/needed"] > 1 and row["evaluations/s"] > 0 and row["10 000 draws"] > 0
        assert row["step"] >= 0.5 * sum(row[part] for part in step_time.PARTS)
    # Path-wise gradients need no second pass.
    assert cases["pis_lp funnel"]["paths"] == 0 < cases["dgfs funnel"]["paths"]


@pytest.mark.slow
def test_time_to_accuracy_stops_when_held(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["time_to_accuracy", "--targets", "gaussian_mixture_9", "--presets", "default", "tb", "--seeds", "0"]
    small = ["--max_steps", "12", "--evaluate_every", "2", "--batch_size", "8"]
    monkeypatch.setattr("sys.argv", [*arguments, *small, "--tolerance", "1000"])
    time_to_accuracy.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 2 and all(line.split()[5] == "10" for line in lines), lines
    monkeypatch.setattr("sys.argv", [*arguments[:-3], "tb", "--seeds", "0", *small, "--tolerance", "1e-9"])
    time_to_accuracy.main()
    assert "not within 12 steps" in capsys.readouterr().out


def check_nothing_is_repeated(benchmark: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for finished runs again, where another one would fail."""
    monkeypatch.setattr(benchmark, "perform", None)
    benchmark.main(arguments)


def test_order_preserving_runs_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_STEPS": 3, "NUM_POINTS": 50, "NUM_DRAWS": 200, "NUM_PATHS": 2}.items():
        monkeypatch.setattr(order_preserving, name, value)
    file = tmp_path / "new" / "lines.jsonl"
    arguments = ["--seeds", "0", "--max_steps", "2", "--batch_size", "16", "--rivals", "2", "--file", str(file)]
    order_preserving.main(arguments)
    first = capsys.readouterr().out
    assert first.startswith("Bradley-Terry, seed 0: correlation ")
    check_nothing_is_repeated(order_preserving, arguments, monkeypatch)
    assert capsys.readouterr().out == first and len(file.read_text().splitlines()) == 1


def test_families_run_and_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = families.CASES["linear_gaussian"](0)
    small = case._replace(contexts=case.contexts[:3], log_z=case.log_z[:3], num_draws=300)
    monkeypatch.setitem(families.CASES, "linear_gaussian", lambda seed: small)
    file = tmp_path / "new" / "lines.jsonl"
    arguments = ["--cases", "linear_gaussian", "--seeds", "0", "--max_steps", "2", "--file", str(file)]
    families.main(arguments)
    first = capsys.readouterr().out
    assert first.startswith("linear_gaussian, seed 0, 2 steps: largest error ")
    # The untrained sampler begins as a map that is exact for linear models, with an effective share of 0.8.
    (found,) = map(json.loads, file.read_text().splitlines())
    assert max(map(abs, found["errors"])) < 0.2 and len(found["own"]["errors"]) == 3
    check_nothing_is_repeated(families, arguments, monkeypatch)
    assert capsys.readouterr().out == first and len(file.read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["preferences_sum", "preferences_log_linear"])
def test_truths_of_preferences(name: str) -> None:
    """By draws of a wide normal distribution, in three dimensions."""
    case = families.CASES[name](0)
    x = 2.5 * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_density = -0.5 * (x / 2.5).square().sum(-1) - 3 * math.log(2.5) - 1.5 * math.log(2 * math.pi)
    for context, log_z in zip(case.contexts[:3], case.log_z[:3], strict=True):
        weight = (case.family.log_prob(x, context.expand(len(x), -1)) - log_density - log_z).exp()
        assert abs(float(weight.mean()) - 1) < 4.5 * float(weight.std()) / math.sqrt(len(weight))


def test_trust_region_runs_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_STEPS": 3, "NUM_PATHS": 64, "BATCH_SIZE": 16, "NUM_SHOWN": 50}.items():
        monkeypatch.setattr(trust_region, name, value)
    file = tmp_path / "new" / "lines.jsonl"
    arguments = ["--losses", *trust_region.LOSSES, "--dims", "2", "--seeds", "0", "--max_steps", "2"]
    arguments += ["--num_draws", "200", "--file", str(file)]
    trust_region.main(arguments)
    first = capsys.readouterr().out
    assert [line.split(":")[0] for line in first.splitlines()] == [
        f"{loss}, d = 2, seed 0" for loss in trust_region.LOSSES
    ]
    check_nothing_is_repeated(trust_region, arguments, monkeypatch)
    assert capsys.readouterr().out == first and len(file.read_text().splitlines()) == 3


@pytest.mark.slow
def test_physics_runs_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "physics.jsonl"
    monkeypatch.setattr(physics, "CASES", {"small": lambda: U1Gauge((2, 2), 1.0)})
    for name in ("NUM_COMPARED", "NUM_REFERENCE", "NUM_EVAL"):
        monkeypatch.setattr(physics, name, 100)
    arguments = ["physics", "--seeds", "0", "--max_steps", "2", "--num_draws", "300", "--file", str(file)]
    monkeypatch.setattr("sys.argv", arguments)
    physics.main()
    first = capsys.readouterr().out
    (found,) = map(json.loads, file.read_text().splitlines())
    assert found["steps"] == 2 and found["truth_is"] == "exact" and found["sampler"]["num_samples"] == 300
    # 5 standard errors of the search, 6e-7.
    assert abs(found["search"]["error"]) < 5 * (found["search"]["high"] - found["search"]["low"]) / 3.92
    assert (
        found["sampler"]["eubo_is_exact"]
        and found["num_target_evaluations"] > found["search"]["num_target_evaluations"]
    )
    assert found["cpu_seconds"]["all"] >= found["cpu_seconds"]["search"] + found["cpu_seconds"]["training"]
    assert found["observables"]["topological_charge_squared"].keys() >= {"value", "standard_error", "exact"}
    assert found["distances"]["energy_wasserstein2"]["floor"] > 0
    assert "| small | 0 | 15.7233 |" in first and "| small | 0 | plaquette |" in first
    with file.open("a") as lines:
        lines.write('{"case": "small", "se')  # as a run that was killed while it wrote
    physics.main()
    assert capsys.readouterr().out == first
    physics.append(file, {**found, "seed": 1, "failed": "It has no integral."})
    assert len(physics.read(file)) == 2
    monkeypatch.setattr("sys.argv", [*arguments, "--seeds", "1"])
    physics.main()
    said = capsys.readouterr().out
    assert "| small | 1 |" in said and "- small, seed 1: It has no integral." in said
    for wrong in (["--minutes", "0"], ["--cases", "none"]):
        monkeypatch.setattr("sys.argv", [*arguments, *wrong])
        with pytest.raises(SystemExit):
            physics.main()


@pytest.mark.slow
def test_physics_takes_as_many_steps_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physics, "CASES", {"small": lambda: U1Gauge((2, 2), 1.0)})
    monkeypatch.setattr(physics, "TRIAL_STEPS", 5)
    found = physics.perform(physics.Run("small", 0, minutes=0.2, num_draws=300))
    # A machine that is busy may take longer than the 12 seconds; it must have had the trial, and some steps.
    assert found["steps"] >= 1 and found["num_network_evaluations"] > 0 and found["wall_seconds"] < 60


def test_two_moons_runs_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NUM_DATA": 1, "NUM_DRAWS": 100, "NUM_HELD_OUT": 4, "NUM_WALKS": 3}.items():
        monkeypatch.setattr(two_moons, name, value)
    file = tmp_path / "new" / "lines.jsonl"
    arguments = ["--seeds", "0", "--max_steps", "2", "--batch_size", "16", "--file", str(file)]
    two_moons.main(arguments)
    first = capsys.readouterr().out
    assert first.startswith("seed 0, 2 steps of 16: C2ST ")
    check_nothing_is_repeated(two_moons, arguments, monkeypatch)
    assert capsys.readouterr().out == first and len(file.read_text().splitlines()) == 1


def test_truth_of_two_moons() -> None:
    """Evidence and mean of a posterior by quadrature, one of whose crescents the prior cuts."""
    generator, data = torch.Generator().manual_seed(0), torch.tensor([-0.48, -0.53], dtype=torch.float64)
    axis = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    axis = 0.5 * (axis[1:] + axis[:-1])
    theta = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
    log_density = two_moons.log_likelihood(theta, data) + math.log(0.25)
    # The grid is a fifth of a thickness; the share by draws has an error of 0.002.
    exact = float(log_density.logsumexp(0)) + 2 * math.log(0.002)
    assert two_moons.log_evidence(data, generator) == pytest.approx(exact, abs=0.02)
    drawn = two_moons.exact_draws(data, 4000, generator)
    mean = log_density.softmax(0) @ theta
    assert ((drawn.mean(0) - mean).abs() < 5 * drawn.std(0) / math.sqrt(4000)).all()
