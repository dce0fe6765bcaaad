"""Tables of `examples.benchmarks.posteriors`, in Markdown."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from examples.benchmarks.posterior_methods import METHODS
from examples.posteriors import POSTERIORS

Line = dict[str, Any]
RIGHT = 0.1  # nats


def tables(lines: list[Line]) -> str:
    """Evidence, moments and cost of all runs, and a summary of methods."""
    models = [name for name in POSTERIORS if any(one["model"] == name for one in lines)]
    methods = [name for name in METHODS if any(one["method"] == name for one in lines)]
    of = {(m, k): [one for one in lines if (one["model"], one["method"]) == (m, k)] for m in models for k in methods}
    truths = {name: truth_of(name, of.get((name, "nuts"), [])) for name in models}
    evidence = [
        [f"`{m}`", _truth(truths[m]), *(_each(of[m, k], lambda one, m=m: _error(one, truths[m])) for k in methods)]
        for m in models
    ]
    oracles = {m: next((one for one in of.get((m, "nuts"), []) if "mean" in one), None) for m in models}
    others = [k for k in methods if k != "nuts"]
    moments = [
        [f"`{m}`", *(_each(of[m, k], lambda one, m=m: _moments(one, oracles[m])) for k in others)] for m in models
    ]
    cost = [[f"`{m}`", *(_each(of[m, k], _cost) for k in methods)] for m in models]
    parts = [
        _table(["model", "log Z", *methods], evidence),
        _table(["model", *others], moments),
        _table(["model", *methods], cost),
        _table(
            ["method", "right", "interval holds", "runs", "median CPU s", "median evaluations"],
            [summary(k, [one for m in models for one in of[m, k]], truths) for k in methods],
        ),
    ]
    return "\n\n".join(parts)


def truth_of(name: str, nuts: list[Line]) -> tuple[float, float, str] | None:
    """log Z, its standard error, and where it is from."""
    model = POSTERIORS[name]()
    if model.log_z is not None:
        return model.log_z, 0.0, "exact"
    done = [one for one in nuts if "log_z" in one]
    if not done:
        return None
    error = (done[0]["high"] - done[0]["low"]) / 3.92
    return done[0]["log_z"], error, "bridge"


def summary(method: str, lines: list[Line], truths: dict[str, tuple[float, float, str] | None]) -> list[str]:
    """How many models are right in every run, how many intervals hold the truth, and medians over runs."""
    judged = [one for one in lines if truths[one["model"]] is not None]
    models = {one["model"] for one in judged}
    wrong = {one["model"] for one in judged if not _is_right(one, truths[one["model"]])}
    done = [one for one in judged if "log_z" in one]
    held = sum(_holds(one, truths[one["model"]]) for one in done)
    seconds = [one["cpu_seconds"] for one in lines if one.get("cpu_seconds") is not None]
    evaluations = [one["num_target_evaluations"] for one in done]
    return [
        method,
        f"{len(models - wrong)} of {len(models)}",
        f"{held} of {len(done)}",
        str(len(lines)),
        f"{statistics.median(seconds):.0f}" if seconds else "",
        f"{statistics.median(evaluations):,.0f}" if evaluations else "",
    ]


def _is_right(one: Line, truth: tuple[float, float, str]) -> bool:
    return "log_z" in one and abs(one["log_z"] - truth[0]) <= RIGHT


def _holds(one: Line, truth: tuple[float, float, str]) -> bool:
    """Whether the interval, widened by what is not known of the truth, holds it."""
    slack = 1.96 * truth[1]
    return one["low"] - slack <= truth[0] <= (math.inf if one["high"] is None else one["high"]) + slack


def _truth(truth: tuple[float, float, str] | None) -> str:
    if truth is None:
        return "?"
    return f"{truth[0]:.3f}" if truth[2] == "exact" else f"{truth[0]:.3f} ± {1.96 * truth[1]:.3f}"


def _error(one: Line, truth: tuple[float, float, str] | None) -> str:
    """With half of the 95 % interval; a star where that does not hold the truth."""
    if "failed" in one:
        return "cut off" if one["failed"].startswith("cut") else "refused"
    half = (one["high"] - one["low"]) / 2 if one["high"] is not None else math.inf
    if truth is None:
        return f"{one['log_z']:.3f} ± {half:.3f}"
    return f"{one['log_z'] - truth[0]:+.3f} ± {half:.3f}{'*' * (not _holds(one, truth))}"


def _moments(one: Line, oracle: Line | None) -> str:
    """Beside NUTS: the worst mean or variance, in standard errors; the worst mass of a 90 % interval; labellings."""
    if "mean" not in one or oracle is None:
        return ""
    found = f"{worst_z(one, oracle):.1f}, {worst_mass(one, oracle):.0%}"
    if "shares" in one:
        found += f", {max(abs(6 * share - 1) for share in one['shares']):.0%}"
    return found


def worst_z(one: Line, oracle: Line) -> float:
    """Of means and variances of free numbers: differences in standard errors of both."""
    worst = 0.0
    for key in ("mean", "variance"):
        difference = np.array(one[key]) - np.array(oracle[key])
        error = np.hypot(one[f"{key}_error"], oracle[f"{key}_error"])
        worst = max(worst, float(np.abs(difference / error).max()))
    return worst


def worst_mass(one: Line, oracle: Line) -> float:
    """Of the mass that NUTS has in a central 90 % interval, of the free number where it is farthest from that."""
    mine, levels = np.array(one["quantiles"]), np.arange(1, 100) / 100
    masses = [
        float(np.diff(np.interp(mine[[4, 94], k], column, levels))[0])
        for k, column in enumerate(np.array(oracle["quantiles"]).T)
    ]
    return max(masses, key=lambda mass: abs(mass - 0.9))


def _cost(one: Line) -> str:
    if "failed" in one and one.get("cpu_seconds") is not None:
        return f"> {one['cpu_seconds']:.0f} s"
    return f"{one['cpu_seconds']:.0f} s, {one['num_target_evaluations']:,}" if "log_z" in one else ""


def _each(lines: list[Line], say: Callable[[Line], str]) -> str:
    """Of all seeds, in their order."""
    return "; ".join(filter(None, (say(one) for one in sorted(lines, key=lambda one: one["seed"])))) or "–"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *rows])
