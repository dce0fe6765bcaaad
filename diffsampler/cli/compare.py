"""The command line of model comparison: `diffsampler compare runs/A/version_0 runs/B/version_0`."""

import json
import math
from pathlib import Path
from typing import Any

from diffsampler.comparison import compare_log_z
from diffsampler.errors import InputError
from diffsampler.log_z import GRADES, Verdict


def run_compare(
    runs: list[str], prior: list[float] | None = None, output: str | None = None, figure: str | None = None
) -> None:
    """Compare models of the same data by the evidence that runs have found.

    Arguments:
        runs: folders with a results.json, or these files, two or more.
        prior: the probability of each model before the data, up to a factor; by default all are equal.
        output: a JSON file for the comparison.
        figure: a PNG file for a figure of it.

    Raises:
        InputError: if there is no results.json, or it is of something else.
    """
    if len(runs) < 2:
        raise InputError("compare needs two runs or more: diffsampler compare runs/A/version_0 runs/B/version_0.")
    files = [_file_of(run) for run in runs]
    results = {name: _read(file) for name, file in zip(_names(files), files, strict=True)}
    if prior is not None and len(prior) != len(results):
        raise InputError(f"prior must be {len(results)} numbers, one for each run, got {prior!r}.")
    log_zs = {name: (one["log_z"], one["low"], one["high"]) for name, one in results.items()}
    verdicts = {name: one["verdict"] for name, one in results.items()}
    weights = None if prior is None else dict(zip(results, prior, strict=True))
    found = compare_log_z(log_zs, verdicts, weights)
    print(found)
    if output is not None:
        Path(output).write_text(json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n")
        print(f"Results: {output}")
    if figure is not None:
        found.plot().savefig(figure, dpi=150)
        print(f"Figure: {figure}")


def _file_of(run: str) -> Path:
    path = Path(run)
    file = path / "results.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"there is no results.json in {run!r}: name the folder of a finished run, or that file.")
    return file


def _names(files: list[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart."""
    # A folder's results.json is its folder; any other file is itself.
    folders = [(file.parent if file.name == "results.json" else file.with_suffix("")).resolve().parts for file in files]
    if len(set(folders)) < len(folders):
        raise InputError("compare was given the same run twice.")
    length = 1
    while len({parts[-length:] for parts in folders}) < len(folders):
        length += 1
    return ["/".join(parts[-length:]) for parts in folders]


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
        if not {"log_z", "low", "high", "verdict"} <= found.keys():
            raise InputError(f"{file} has no log_z with a verdict: was it written by diffsampler fit or test?")
        numbers = {key: float(found[key]) for key in ("log_z", "low")}
        given = found["verdict"]
        verdict = Verdict(given["grade"], [*given["reasons"]] or [""], [*given.get("next_steps", [])])
        if verdict.grade not in GRADES:
            raise ValueError(verdict.grade)
        return {**numbers, "high": _or_inf(found["high"]), "verdict": verdict}
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{file} cannot be read as results of a run.") from error


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else float(value)
