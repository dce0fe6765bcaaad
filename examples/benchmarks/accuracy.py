"""Accuracy of the shipped configurations: log Z error, ELBO gap, ESS and mode masses, over seeds.

`python -m examples.benchmarks.accuracy --targets gaussian_mixture_9 funnel [--seeds 0 1 2] [--jobs 2]`

Every run is `diffsampler fit --config examples/<target>.yaml --seed_everything <seed>` on one thread. Figures are means
over the last five evaluations of a run (2000 samples each), never the best, then mean and standard deviation over
seeds. `worst_mode_mass`, from the final 10,000 samples, is how far the worst mode is off: relative to its mass in a
mixture, the difference of right-well masses in ManyWell. A run that is finished is not repeated, one that was cut off
goes on from its last checkpoint. Writes table.md and table.csv into the folder.
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
from typing import Any

EXAMPLES = Path(__file__).parents[1]
COLUMNS = ("abs_log_z_error", "elbo_gap", "ess", "worst_mode_mass", "num_target_evaluations", "cpu_seconds")


def run(target: str, seed: int, folder: Path, more: list[str]) -> dict[str, Any]:
    """Train, or take what an earlier call has finished, and return what results.json says."""
    run_folder = folder / target / f"seed_{seed}"
    results, checkpoint = run_folder / "results.json", run_folder / "checkpoints" / "last.ckpt"
    if not results.is_file():
        run_folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "diffsampler.cli", "fit", "--config", str(EXAMPLES / f"{target}.yaml")]
        command += [f"--seed_everything={seed}", f"--trainer.logger.init_args.save_dir={folder}"]
        command += [f"--trainer.logger.init_args.name={target}", f"--trainer.logger.init_args.version=seed_{seed}"]
        command += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", *more]
        if checkpoint.is_file():
            command.append(f"--ckpt_path={checkpoint}")
        with (run_folder / "log.txt").open("a") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
            _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise RuntimeError(f"{target}, seed {seed} failed; see {run_folder / 'log.txt'}")
        add_seconds(run_folder / "cpu_seconds.txt", usage)
    report = json.loads(results.read_text())
    return {**report, "cpu_seconds": float((run_folder / "cpu_seconds.txt").read_text())}


def add_seconds(file: Path, usage: resource.struct_rusage) -> None:
    """Add the CPU seconds of a finished process to what a file says."""
    before = float(file.read_text()) if file.is_file() else 0.0
    file.write_text(f"{before + usage.ru_utime + usage.ru_stime:.1f}\n")


def figures(report: dict[str, Any]) -> dict[str, float]:
    """One row of the table from one results.json; figures that a target does not have are left out."""
    row = {**report["last_evaluations"], **{key: report[key] for key in ("num_target_evaluations", "cpu_seconds")}}
    masses = report["diagnostics"]
    if "min_mode_mass_ratio" in masses:
        row["worst_mode_mass"] = max(1 - masses["min_mode_mass_ratio"], masses["max_mode_mass_ratio"] - 1)
    elif "right_well_mass_min" in masses:
        truth = masses["right_well_mass_truth"]
        row["worst_mode_mass"] = max(masses["right_well_mass_max"] - truth, truth - masses["right_well_mass_min"])
    return {key: row[key] for key in COLUMNS if row.get(key) is not None}


def summarise(rows: list[dict[str, float]]) -> dict[str, str]:
    """Mean and standard deviation over seeds."""
    summary = {}
    for key in COLUMNS:
        values = [row[key] for row in rows if key in row]
        if not values:
            summary[key] = ""
        elif key in {"num_target_evaluations", "cpu_seconds"}:
            summary[key] = f"{statistics.mean(values):,.0f}"
        else:
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            summary[key] = f"{statistics.mean(values):.3f}{spread}"
    return summary


def write_tables(folder: Path, table: dict[str, dict[str, str]]) -> str:
    """Write table.csv and table.md; returns the latter."""
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["target", *COLUMNS])
        writer.writerows([name, *row.values()] for name, row in table.items())
    lines = ["| target | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    lines += [f"| {name} | " + " | ".join(row.values()) + " |" for name, row in table.items()]
    text = "\n".join(lines) + "\n"
    (folder / "table.md").write_text(text)
    return text


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", required=True, help="names of files in examples/")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"))
    arguments, more = parser.parse_known_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {
            (target, seed): pool.submit(run, target, seed, arguments.folder, more)
            for seed in arguments.seeds
            for target in arguments.targets
        }
        reports = {key: future.result() for key, future in futures.items()}
    table = {
        target: summarise([figures(reports[target, seed]) for seed in arguments.seeds]) for target in arguments.targets
    }
    print(write_tables(arguments.folder, table))


if __name__ == "__main__":
    main()
