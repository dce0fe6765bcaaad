"""Can its log Z be trusted: forty densities with exact log Z, default settings, no tuning.

    python -m examples.benchmarks.calibration --seeds 0 1 2
    python -m examples.benchmarks.calibration --reference --seeds 0 1 2 3 4
    python -m examples.benchmarks.calibration --improper --seeds 0
    python -m examples.benchmarks.calibration --target my_file.MyTarget

Every run is `fit(Sampler(target), seed=seed)` on one thread, one estimate and its verdict. Prints each, and of all: how
many are graded trustworthy and wrong, how many are within 0.1 of the truth, how often the 95 % intervals of those
graded trustworthy hold it, how many of the accurate ones are graded so, the CPU seconds to the end of fit, and the
worst. `--reference` is the same for the plain reference alone. `--improper` says whether densities without an integral
are refused, by the reference and by fit, and odd ones that have one are not. A target of one's own may know its log_z
or not. Finished runs are kept in the folder, in one of its own for each of these but the first, and not repeated.
"""

import argparse
import importlib
import itertools
import json
import logging
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffsampler import InputError, Sampler, Target, assess, fit
from diffsampler.baseline import reference
from diffsampler.log_z import GRADES
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.densities import DENSITIES
from examples.benchmarks.densities_brought import BROUGHT
from examples.benchmarks.densities_hard import HARD, SPARE
from examples.benchmarks.improper import IMPROPER, ODD

WRONG, ACCURATE = 0.1, 0.05
FORTY = {**DENSITIES, **BROUGHT, **HARD}
NAMED = {**FORTY, **SPARE}
ALL_IMPROPER = {name: make for name, (make, _) in IMPROPER.items()}
NUM_WORST = 5


class Run(NamedTuple):
    """One density, the way that its log Z is estimated, `fit` or `reference`, and a seed."""

    name: str
    how: str
    seed: int
    max_steps: int | None = None

    @property
    def file_name(self) -> str:
        """Of what it has found."""
        words = self.name.replace(",", "").replace("/", " ").replace("^", "").split()
        steps = "" if self.max_steps is None else f"_{self.max_steps}_steps"
        return f"{'-'.join(words)}_{self.how}_{self.seed}{steps}.json"


def load(dotted: str) -> Target:
    """A target of the user's: a class that takes no arguments, a function that makes one, or one made already."""
    module, _, attribute = dotted.rpartition(".")
    made = getattr(importlib.import_module(module), attribute)
    target = made if isinstance(made, Target) else made()
    if not isinstance(target, Target):
        raise InputError(f"--target must name a Target, such as my_file.MyTarget, got {dotted!r}.")
    return target


def make_target(name: str) -> Target:
    make = {**NAMED, **ALL_IMPROPER, **ODD}.get(name)
    return load(name) if make is None else make()


def perform(run: Run, folder: Path) -> dict[str, Any]:
    """One run, or what an earlier call has found; a density that is refused is a finding too."""
    file = folder / run.file_name
    if file.is_file():
        return json.loads(file.read_text())
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    target = make_target(run.name)
    found = {"name": run.name, "how": run.how, "seed": run.seed, "true_log_z": target.log_z, "refused": None}
    start = time.process_time()
    try:
        found.update(learn(target, run) if run.how == "fit" else estimate_plainly(target, run))
    except InputError as error:
        found.update(refused=str(error), seconds=time.process_time() - start)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(found, indent=2) + "\n")
    unfinished.replace(file)
    return found


def learn(target: Target, run: Run) -> dict[str, Any]:
    """Default settings; the seconds are those of fit alone."""
    steps = {}
    if run.max_steps is not None:
        steps = {"max_steps": run.max_steps, "steps_per_epoch": max(1, run.max_steps // 5)}
    sampler, start = Sampler(target), time.process_time()
    history = fit(sampler, seed=run.seed, enable_progress_bar=False, accelerator="cpu", **steps)
    seconds = time.process_time() - start
    found = assess(sampler, seed=run.seed, history=history)
    plain = None if found.reference is None else found.reference.log_z
    verdict = {"grade": found.verdict.grade, "reasons": found.verdict.reasons}
    last = history[-1] if history else {}  # no evaluation had a draw of any weight
    ended = {"steps": last.get("step"), "ended": last.get("ended")}
    return {**vars(found.estimate), **verdict, **ended, "reference_log_z": plain, "seconds": seconds}


def estimate_plainly(target: Target, run: Run) -> dict[str, Any]:
    start = time.process_time()
    estimate = reference(target, seed=run.seed).estimate
    return {**vars(estimate), "seconds": time.process_time() - start}


def error_of(result: dict[str, Any]) -> float:
    """Infinite where there is no estimate of a density that has an integral."""
    error = math.inf if result["refused"] else result["log_z"] - result["true_log_z"]
    return math.inf if math.isnan(error) else error


def is_covered(result: dict[str, Any]) -> bool:
    return not result["refused"] and result["low"] <= result["true_log_z"] <= result["high"]


def line(result: dict[str, Any]) -> str:
    """One row of the table of runs."""
    row = f"{result['name']:33s} {result['seed']:4d} "
    if result["refused"]:
        return f"{row} refused: {result['refused']}"
    if result["true_log_z"] is None:
        row += f"{result['log_z']:+10.3f} [{result['low']:.3f}, {result['high']:.3f}]"
    else:
        row += f"{error_of(result):+9.3f}{'' if is_covered(result) else '*':1s}"
    evaluations = f"{result['num_target_evaluations']:12,d} {result['seconds']:7.1f}"
    return f"{row} {result['ess']:6.2f} {evaluations}  {result.get('grade', '')}".rstrip()


def share(results: list[dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> str:
    """In percent and as a fraction."""
    num = sum(map(holds, results))
    return f"{num / len(results):.0%} ({num} of {len(results)})" if results else "none"


def summarise(results: list[dict[str, Any]]) -> str:
    """What the runs say together, of densities whose log Z is known."""
    made = [result for result in results if not result["refused"]]
    trusted = [result for result in made if result.get("grade") == GRADES[0]]
    accurate = [result for result in made if abs(error_of(result)) <= ACCURATE]
    lines = [f"{len(results)} runs; within {WRONG} of the truth: {share(results, lambda r: abs(error_of(r)) <= WRONG)}"]
    if any("grade" in result for result in made):
        wrong = sum(abs(error_of(result)) > WRONG for result in trusted)
        lines = [
            f"wrong by more than {WRONG} and graded {GRADES[0]}: {wrong} of {len(results)} runs",
            *lines,
            f"graded {GRADES[0]}: {share(results, lambda r: r.get('grade') == GRADES[0])}",
            f"of those, the 95 % interval holds the truth: {share(trusted, is_covered)}",
            f"of the runs within {ACCURATE}, graded {GRADES[0]}: {share(accurate, lambda r: r['grade'] == GRADES[0])}",
            f"ended without a training step: {share(made, lambda r: r.get('steps') == 0)}",
        ]
    else:
        endless = sum(math.isinf(result["high"]) for result in made)
        lines.append(f"the 95 % interval holds the truth: {share(made, is_covered)}; without an upper end: {endless}")
    lines.append(f"refused: {len(results) - len(made)}")
    if made:
        errors = [abs(error_of(result)) for result in made]
        seconds = [result["seconds"] for result in made]
        evaluations = statistics.median(result["num_target_evaluations"] for result in made)
        until = " to the end of fit" if made[0]["how"] == "fit" else ""
        lines += [
            f"absolute error: mean {statistics.mean(errors):.3f}, median {statistics.median(errors):.4f}",
            f"median CPU seconds{until}: {statistics.median(seconds):.1f} (at most {max(seconds):.1f}); "
            f"target evaluations: {evaluations:,.0f}",
        ]
    worst = sorted(results, key=lambda result: -abs(error_of(result)))[:NUM_WORST]
    lines += ["worst:", *(f"    {line(result)}" for result in worst)]
    return "\n".join(lines)


def summarise_without_truth(results: list[dict[str, Any]]) -> str:
    """Of one density whose log Z nobody knows: whether the seeds agree."""
    made = [result for result in results if not result["refused"]]
    lines = [f"{len(results)} runs; refused: {len(results) - len(made)}"]
    if made:
        log_z = [result["log_z"] for result in made]
        lines.append(f"log Z: {statistics.mean(log_z):.3f} in the mean, {max(log_z) - min(log_z):.3f} between the ends")
        lines.append(f"median CPU seconds: {statistics.median(result['seconds'] for result in made):.1f}")
        if "grade" in made[0]:
            lines += [f"{grade}: {sum(result['grade'] == grade for result in made)}" for grade in GRADES]
    return "\n".join(lines)


def refusal_line(result: dict[str, Any]) -> str:
    """One row of the table of densities that may have no integral."""
    said = f"refused: {result['refused']}"
    if not result["refused"]:
        said = f"not refused: log Z {result['log_z']:.3f}"
        if result["true_log_z"] is not None:
            said += f" (error {error_of(result):+.3f})"
        said += f", {result['grade']}" if "grade" in result else ""
    because = f" [{IMPROPER[result['name']][1]}]" if result["name"] in IMPROPER else ""
    return f"{result['name']:33s} {result['how']:9s} {result['seed']:4d}  {said}{because}"


def summarise_refusals(results: list[dict[str, Any]]) -> str:
    """How many were refused that should be, and that should not."""
    lines = []
    for what, names in (("without an integral", ALL_IMPROPER), ("odd, with an integral", ODD)):
        for how in ("reference", "fit"):
            of_these = [result for result in results if result["name"] in names and result["how"] == how]
            lines.append(f"{what}: refused by {how}: {share(of_these, lambda result: bool(result['refused']))}")
    return "\n".join(lines)


def plan(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Run]:
    """All runs that are asked for."""
    known = {**ALL_IMPROPER, **ODD} if arguments.improper else NAMED
    names = arguments.densities or list(known if arguments.improper else FORTY)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no density {unknown[0]!r} among: {', '.join(map(repr, known))}")
    if arguments.target is not None:
        try:
            load(arguments.target)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            parser.error(f"--target must be a class that can be imported, such as my_file.MyTarget: {error}")
        names = [arguments.target]
    ways = ["reference", "fit"] if arguments.improper else ["reference" if arguments.reference else "fit"]
    return [
        Run(name, how, seed, arguments.max_steps if how == "fit" else None)
        for seed, name, how in itertools.product(arguments.seeds, names, ways)
    ]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--densities", nargs="+", metavar="NAME", help="some only; more are known by name than are run")
    what.add_argument("--target", metavar="MODULE.CLASS", help="a Target of your own instead")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--reference", action="store_true", help="the plain reference alone")
    how.add_argument("--improper", action="store_true", help="which densities are refused")
    parser.add_argument("--max_steps", type=count, help="training steps; None: as many as fit makes by itself")
    parser.add_argument("--jobs", type=count, default=1, help="runs side by side, one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/calibration"))
    arguments = parser.parse_args()
    if arguments.improper and arguments.target is not None:
        parser.error("--improper is a table of its own: give --target without it")
    runs = plan(arguments, parser)
    folder = arguments.folder
    for mode in ("reference", "improper"):
        folder = folder / mode if getattr(arguments, mode) else folder
    folder.mkdir(parents=True, exist_ok=True)
    tell = refusal_line if arguments.improper else line
    if not arguments.improper and (arguments.target is None or load(arguments.target).log_z is not None):
        print(f"{'density':33s} seed     error    ESS  evaluations   CPU s  verdict    (*: outside the 95 % interval)")
    results = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for pending in [pool.submit(perform, run, folder) for run in runs]:
            results.append(pending.result())
            print(tell(results[-1]), flush=True)
    if arguments.improper:
        print(summarise_refusals(results))
    elif all(result["true_log_z"] is None for result in results):
        print(summarise_without_truth(results))
    else:
        print(summarise(results))


if __name__ == "__main__":
    main()
