"""Particles and lattices, by the target alone: log Z, observables and what they cost, within minutes of one core.

    python -m examples.benchmarks.physics --seeds 0 1 2 --minutes 15
    python -m examples.benchmarks.physics --cases DW-4 LJ-13 --seeds 0

Every run is a `Sampler(target)` on one thread: search, training, 10 000 weighted draws and their verdict. A trial of a
copy tells what a step costs, and training gets as many steps as fit into what the search has left of the minutes;
Lightning's `max_time` ends it where the machine has become slower since. Only the end of the assessment may run over.

What a run has found is a line of a JSON file as soon as it is done, and is not repeated: start the command again to go
on, or several at once, with other cases or seeds, on the same file. Prints the tables of all that the file has for the
cases, seeds and minutes asked for.
"""

import argparse
import copy
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch

from diffsampler import InputError, Sampler, Target, fit
from diffsampler.assessment import Assessment, assess_draws, estimate_observables
from diffsampler.report.distances import distances_of_target
from diffsampler.streams import new_generator
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.lines import kept
from targets import DoubleWell4, LennardJones, Phi4, Phi4Hopping, U1Gauge

CASES: dict[str, Callable[[], Target]] = {
    "DW-4": DoubleWell4,
    "LJ-13": lambda: LennardJones(13),
    "phi^4 6x6": lambda: Phi4((6, 6), -4.0, 6.975),
    "phi^4 8x8": lambda: Phi4((8, 8), -4.0, 6.008),
    "phi^4 6x6 kappa 0.30": lambda: Phi4Hopping((6, 6), 0.30, 0.022),
    "U(1) 4x4 beta 2": lambda: U1Gauge((4, 4), 2.0),
    "U(1) 8x8 beta 4": lambda: U1Gauge((8, 8), 4.0),
}
AUDITED = {"LJ-13": 59.89}  # +- 0.02, by two methods: `targets.LennardJones`
NUM_DRAWS, NUM_COMPARED, NUM_REFERENCE = 10_000, 2000, 4000
NUM_VALIDATIONS, NUM_EVAL = 5, 500
TRIAL_STEPS, TRIAL_DRAWS = 100, 200


class Run(NamedTuple):
    """One case, a seed, and what bounds it: `max_steps` None means as many as fit into the minutes."""

    case: str
    seed: int
    minutes: float
    max_steps: int | None = None
    num_draws: int = NUM_DRAWS


class StepClock(L.Callback):
    """Notes when training steps end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.monotonic())

    @property
    def seconds_a_step(self) -> float:
        """Of all but the first, which prepares others."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def perform(run: Run) -> dict[str, Any]:
    """Search, train and assess: what the line of a run says."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    target = CASES[run.case]()
    exact = target.log_z  # a transfer matrix, for some: no part of the run
    truth = AUDITED.get(run.case) if exact is None else exact
    start, cpu_start = time.monotonic(), time.process_time()
    deadline = start + 60 * run.minutes
    found = {**run._asdict(), "true_log_z": truth, "truth_is": "audited" if exact is None else "exact"}
    try:
        sampler = Sampler(target)
        sampler.search(run.seed)
        seconds = {"search": time.process_time() - cpu_start}
        plain = {**sampler.reference.to_dict(), "error": _less(sampler.reference.log_z, truth)}
        history = train(sampler, run, deadline)
        seconds["training"] = time.process_time() - cpu_start - seconds["search"]
        found |= {"search": plain, "steps": history[-1]["step"], "ended": history[-1]["ended"]}
        found |= assess_all(sampler, run, history, truth)
    except InputError as error:  # no integral, or diverged
        return {**found, "failed": str(error)}
    cost = {"cpu_seconds": {**seconds, "all": time.process_time() - cpu_start}}
    return {**found, **cost, "wall_seconds": time.monotonic() - start}


def train(sampler: Sampler, run: Run, deadline: float) -> list[dict[str, Any]]:
    """The recipe's training, for as many steps as there is time before the assessment; what `fit` returns."""
    options = {"enable_progress_bar": False, "accelerator": "cpu", "tolerance": 0.0, "num_eval_samples": NUM_EVAL}
    steps, assessment = run.max_steps, 0.0
    if steps is None:
        clock, trial = StepClock(), copy.deepcopy(sampler)
        of_trial = {**options, "steps_per_epoch": TRIAL_STEPS, "num_eval_samples": 16}
        fit(trial, TRIAL_STEPS, run.seed, callbacks=clock, **of_trial)
        start = time.monotonic()
        trial.sample(TRIAL_DRAWS, return_log_weights=True, seed=run.seed)
        # Those to weigh, those of the target that are rolled back, and those of validations.
        num_draws = run.num_draws + NUM_COMPARED + NUM_VALIDATIONS * NUM_EVAL
        assessment = (time.monotonic() - start) * num_draws / TRIAL_DRAWS
        steps = max(1, int((deadline - time.monotonic() - assessment) / clock.seconds_a_step))
    left = max(deadline - time.monotonic() - assessment, 1.0)
    per_epoch = -(-steps // NUM_VALIDATIONS)
    return fit(sampler, steps, run.seed, steps_per_epoch=per_epoch, max_time={"seconds": left}, **options)


def assess_all(sampler: Sampler, run: Run, history: list[dict[str, Any]], truth: float | None) -> dict[str, Any]:
    """The estimate with its verdict, observables, distances, and counts of evaluations."""
    target, generator = sampler.target, new_generator("test", run.seed)
    x, log_weight = sampler.sample(run.num_draws, return_log_weights=True, generator=generator)
    estimate = sampler.estimate_from(log_weight)
    counts = {name: getattr(sampler, name) for name in ("num_target_evaluations", "num_network_evaluations")}
    generator = new_generator("metrics", run.seed)
    found = assess_draws(sampler, x, log_weight, estimate, generator, history)
    means = estimate_observables(target, target.observables, x, log_weight)
    reference = sampler.coordinates.points[-NUM_REFERENCE:]
    if found.draws_are_exact:
        reference = target.sample(NUM_REFERENCE, generator)
    distances = distances_of_target(target, x, log_weight, reference, generator)
    return {
        "sampler": {**_estimate_of(found), "error": _less(estimate.log_z, truth)},
        **counts,
        "observables": {name: one.to_dict() for name, one in means.items() if one.value.ndim == 0},
        "distances": {name: one.to_dict() for name, one in distances.items()},
    }


def _estimate_of(found: Assessment) -> dict[str, Any]:
    verdict = {"grade": found.verdict.grade, "reason": found.verdict.reasons[0]}
    return {**found.estimate.to_dict(), "eubo": found.eubo, "eubo_is_exact": found.draws_are_exact, **verdict}


def _less(log_z: float, truth: float | None) -> float | None:
    return None if truth is None else log_z - truth


def tables(results: list[dict[str, Any]]) -> str:
    """Markdown: what is known of log Z, a row for each run, then observables and distances."""
    heads = ["case", "seed", "true log Z", "search: error", "CPU s", "evaluations", "sampler: error", "ESS"]
    heads += ["EUBO - ELBO", "verdict", "evaluations", "network evaluations", "CPU s", "steps"]
    rows = [_row(one) for one in results]
    means = [[one["case"], str(one["seed"]), *cells] for one in results for cells in _means(one)]
    reasons = [
        f"- {one['case']}, seed {one['seed']}: {one.get('failed') or one['sampler']['reason']}"
        for one in results
        if "failed" in one or one["sampler"]["grade"] != "trustworthy"
    ]
    parts = [_table(heads, rows)]
    if means:
        parts.append(_table(["case", "seed", "observable", "value", "exact, or floor"], means))
    return "\n\n".join([*parts, *(["\n".join(reasons)] if reasons else [])])


def _row(one: dict[str, Any]) -> list[str]:
    truth = "" if one["true_log_z"] is None else f"{one['true_log_z']:.4f}"
    start = [one["case"], str(one["seed"]), f"{truth} (audited)" if one["truth_is"] == "audited" else truth]
    if "failed" in one:
        return [*start, *[""] * 6, "failed", *[""] * 4]
    plain, learned, cpu = one["search"], one["sampler"], one["cpu_seconds"]
    gap = "" if learned["eubo"] is None else f"{learned['eubo'] - learned['elbo']:.3g}"
    return [
        *start,
        _error(plain),
        f"{cpu['search']:.0f}",
        f"{plain['num_target_evaluations']:,}",
        _error(learned),
        f"{learned['ess']:.3f}",
        gap if learned["eubo_is_exact"] else f"{gap} (of the search)",
        learned["grade"],
        f"{one['num_target_evaluations']:,}",
        f"{one['num_network_evaluations']:,}",
        f"{cpu['all']:.0f}",
        f"{one['steps']:,}",
    ]


def _error(estimate: dict[str, Any]) -> str:
    """With half of the 95 % interval; a star where the interval does not hold the truth."""
    if estimate["high"] is None:
        half = "no interval"
    else:
        half = f"± {(estimate['high'] - estimate['low']) / 2:.4f}"
    if estimate["error"] is None:
        return f"log Z {estimate['log_z']:.3f} {half}"
    truth = estimate["log_z"] - estimate["error"]
    is_missed = truth < estimate["low"] or truth > (math.inf if estimate["high"] is None else estimate["high"])
    return f"{estimate['error']:+.4f} {half}{'*' * is_missed}"


def _means(one: dict[str, Any]) -> list[list[str]]:
    cells = []
    for name, found in one.get("observables", {}).items():
        exact = "" if found.get("exact") is None else f"{found['exact']:.4f}"
        cells.append([name, f"{found['value']:.4f} ± {found['standard_error']:.4f}", exact])
    for name, found in one.get("distances", {}).items():
        cells.append(
            [name, f"{_of(found['value'])}, weighted {_of(found['weighted'])}", f"{_of(found['floor'])} (floor)"]
        )
    return cells


def _of(value: float | None) -> str:
    return "inf" if value is None else f"{value:.3g}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def minutes(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), metavar="CASE", help=f"some of {', '.join(CASES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=minutes, default=15.0, help="of a run, the search included")
    parser.add_argument("--max_steps", type=count, help="training steps, instead of as many as fit into the minutes")
    parser.add_argument("--num_draws", type=count, default=NUM_DRAWS, help="of the assessment")
    parser.add_argument("--file", type=Path, default=Path("runs/physics.jsonl"), help="a line for each run")
    arguments = parser.parse_args()
    bounds = arguments.minutes, arguments.max_steps, arguments.num_draws
    runs = [Run(case, seed, *bounds) for case in arguments.cases or CASES for seed in arguments.seeds]
    print(tables([kept(arguments.file, run, perform) for run in runs]))


if __name__ == "__main__":
    main()
