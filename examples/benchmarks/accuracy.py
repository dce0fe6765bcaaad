"""Accuracy over seeds: log Z error, ELBO gap, ESS, EUBO, W2 and mode masses, at one budget.

The shipped protocols, each file of examples/ as it is:

    python -m examples.benchmarks.accuracy --targets gaussian_mixture_9 funnel

Any preset on any target of examples/targets/, within a budget of target evaluations:

    python -m examples.benchmarks.accuracy --presets dgfs dbs --targets funnel many_well --budget 20_000_000

Every run is one `diffsampler fit` on one thread, `--jobs` of them side by side; further arguments are passed on to it.
Figures are means over the last five evaluations of a run (2000 samples each), never the best, then mean and standard
deviation over seeds. EUBO and W2 are of 2000 exact samples, where there are any, and the final weights. `worst mode`,
from the final 10,000 samples, is how far the worst mode is off: relative to its mass in a mixture, the difference of
right-well masses in ManyWell. A run that is finished is not repeated, one that was cut off goes on from its last
checkpoint. Writes table.md and table.csv into the folder.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLES = Path(__file__).parents[1]
COLUMNS = {
    "abs_log_z_error": "abs log Z error",
    "elbo_gap": "ELBO gap",
    "ess": "ESS",
    "eubo_gap": "EUBO gap",
    "wasserstein2": "W2",
    "worst_mode": "worst mode",
    "num_target_evaluations": "target evaluations",
    "cpu_seconds": "CPU s",
}
COUNTS = ("num_target_evaluations", "cpu_seconds")


class Run(NamedTuple):
    """One training run: a target, the preset that it is trained by (None: the target's own protocol), and a seed."""

    target: str
    preset: str | None
    seed: int

    @property
    def name(self) -> str:
        """Of the run's folder and of its row."""
        return self.target if self.preset is None else f"{self.target}-{self.preset}"

    @property
    def configs(self) -> list[str]:
        """The files that it is made of."""
        if self.preset is None:
            return [str(EXAMPLES / f"{self.target}.yaml")]
        return [str(EXAMPLES / "presets" / f"{self.preset}.yaml"), str(EXAMPLES / "targets" / f"{self.target}.yaml")]


def perform(run: Run, folder: Path, more: list[str]) -> dict[str, Any]:
    """Train, or take what an earlier call has finished, and return what results.json says."""
    run_folder = folder / run.name / f"seed_{run.seed}"
    results, checkpoint = run_folder / "results.json", run_folder / "checkpoints" / "last.ckpt"
    if not results.is_file():
        run_folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "diffsampler.cli", "fit", *(f"--config={path}" for path in run.configs)]
        command += [f"--seed_everything={run.seed}", f"--trainer.logger.init_args.save_dir={folder}"]
        command += [
            f"--trainer.logger.init_args.name={run.name}",
            f"--trainer.logger.init_args.version=seed_{run.seed}",
        ]
        command += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", *more]
        if checkpoint.is_file():
            command.append(f"--ckpt_path={checkpoint}")
        with (run_folder / "log.txt").open("a") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
            _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise RuntimeError(f"{run.name}, seed {run.seed} failed; see {run_folder / 'log.txt'}")
        add_seconds(run_folder / "cpu_seconds.txt", usage)
    return {**json.loads(results.read_text()), "cpu_seconds": read_seconds(run_folder / "cpu_seconds.txt")}


def read_seconds(file: Path) -> float | None:
    """What `add_seconds` wrote; None where a run outlived the call that started it."""
    return float(file.read_text()) if file.is_file() else None


def add_seconds(file: Path, usage: resource.struct_rusage) -> None:
    """Add the CPU seconds of a finished process to what a file says."""
    file.write_text(f"{(read_seconds(file) or 0.0) + usage.ru_utime + usage.ru_stime:.1f}\n")


def figures(report: dict[str, Any]) -> dict[str, float]:
    """One row of the table from one results.json; figures that a target does not have are left out."""
    found = report["diagnostics"]
    row = {**report["last_evaluations"], **found, **{key: report[key] for key in COUNTS}}
    if "eubo" in found:
        row["eubo_gap"] = found["eubo"] - report["true_log_z"]
    if "min_mode_mass_ratio" in found:
        row["worst_mode"] = max(1 - found["min_mode_mass_ratio"], found["max_mode_mass_ratio"] - 1)
    elif "right_well_mass_truth" in found:
        truth = found["right_well_mass_truth"]
        row["worst_mode"] = max(found["right_well_mass_max"] - truth, truth - found["right_well_mass_min"])
    return {key: row[key] for key in COLUMNS if row.get(key) is not None}


def summarise(rows: list[dict[str, float]]) -> dict[str, str]:
    """Mean and standard deviation over seeds, in words."""
    summary = {}
    for key in COLUMNS:
        values = [row[key] for row in rows if key in row]
        if not values:
            summary[key] = ""
        elif key in COUNTS:
            summary[key] = f"{statistics.mean(values):,.0f}"
        else:
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            summary[key] = f"{statistics.mean(values):.3f}{spread}"
    return summary


def write_tables(folder: Path, table: dict[str, dict[str, str]]) -> str:
    """Write table.csv and table.md; returns the latter."""
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "seeds", *COLUMNS])
        writer.writerows([name, *row.values()] for name, row in table.items())
    lines = ["| run | seeds | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    lines += [f"| {name} | " + " | ".join(row.values()) + " |" for name, row in table.items()]
    text = "\n".join(lines) + "\n"
    (folder / "table.md").write_text(text)
    return text


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--targets", nargs="+", required=True, help="names of files in examples/, or examples/targets/")
    parser.add_argument("--presets", nargs="+", help="names of files in examples/presets/")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=int, help="target evaluations of a run, validations included")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"))
    arguments, more = parser.parse_known_args()
    if arguments.budget is not None:
        more += [f"--model.max_target_evaluations={arguments.budget}"]
        if not any(part.startswith("--trainer.max_steps") for part in more):
            more += ["--trainer.max_steps=1000000"]
    runs = [
        Run(target, preset, seed)
        for seed in arguments.seeds
        for target in arguments.targets
        for preset in arguments.presets or [None]
    ]
    for path in {path for run in runs for path in run.configs}:
        if not Path(path).is_file():
            parser.error(f"there is no {path}")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        reports = dict(zip(runs, pool.map(lambda run: perform(run, arguments.folder, more), runs), strict=True))
    rows: dict[str, list[dict[str, float]]] = {}
    for run, report in reports.items():
        rows.setdefault(run.name, []).append(figures(report))
    table = {name: {"seeds": str(len(found)), **summarise(found)} for name, found in rows.items()}
    print(write_tables(arguments.folder, table))


if __name__ == "__main__":
    main()
