"""log Z of all members of a family, from one training, beside exact values; within minutes of one core.

    python -m examples.benchmarks.families --cases wells phi4 --seeds 0 1 2
    python -m examples.benchmarks.families --cases linear_gaussian preferences_sum preferences_log_linear

Every run is `fit(Sampler(family))` as it is, on one thread. Prints the largest error of log Z over the contexts of the
case, as reported and by each context's own draws alone, the half-widths of the 95 % intervals and how many of them hold
the truth, effective sample sizes of own draws, the mean divergence of the sampler from its members (log Z less the
bound), verdicts, and CPU seconds, the search included.

What a run has found is a line of a JSON file as soon as it is done, and is not repeated.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler import Sampler, fit
from diffsampler.log_z import LogZEstimate
from diffsampler.report.curve_figure import plot_curve
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.families_cases import CASES, Case
from examples.benchmarks.lines import kept

UNKNOWN = 1e9  # for an interval without an end
NUM_SHOWN = 20_000  # draws at each context of a figure


class Run(NamedTuple):
    """A case, a seed, and how long; 0 is what the case says."""

    case: str
    seed: int
    max_steps: int


def train(case: Case, run: Run) -> tuple[Sampler, float]:
    """A sampler, and the CPU seconds that it took."""
    start, sampler = time.process_time(), Sampler(case.family)
    max_steps = run.max_steps or case.max_steps
    fit(sampler, max_steps=max_steps, seed=run.seed, steps_per_epoch=max(1, max_steps // 10), accelerator="cpu")
    return sampler, time.process_time() - start


def measure(sampler: Sampler, case: Case, seed: int) -> dict[str, Any]:
    """log Z at all contexts, by draws that no training saw: as it is reported, and by each context's own alone."""
    curve = sampler.log_z_curve(case.contexts, num_samples=case.num_draws, seed=seed)
    own = [one for one in curve.own if one is not None]
    return {
        **beside_truth(curve.estimates, case.log_z),
        "own": beside_truth(own, case.log_z),
        "ess": [one.ess for one in own],
        "divergence": sum(log_z - one.elbo for log_z, one in zip(case.log_z.tolist(), own, strict=True)) / len(own),
        "grades": curve.grades,
    }


def beside_truth(estimates: Sequence[LogZEstimate], log_z: Tensor) -> dict[str, Any]:
    pairs = list(zip(estimates, log_z.tolist(), strict=True))
    return {
        "errors": [one.log_z - truth for one, truth in pairs],
        "half_widths": [0.5 * (min(one.high, UNKNOWN) - one.low) for one, _ in pairs],
        "held": sum(one.low <= truth <= one.high for one, truth in pairs),
    }


def figure(sampler: Sampler, case: Case, seed: int) -> Figure:
    """The curve of a family whose contexts are numbers, with exact values where they are known."""
    curve = sampler.log_z_curve(case.shown, num_samples=NUM_SHOWN, seed=seed, pool=True)
    known = dict(zip(case.contexts.flatten().tolist(), case.log_z.tolist(), strict=True))
    ends = torch.tensor([[one.log_z, one.low, one.high] for one in curve.estimates])
    exact = [known.get(context) for context in curve.contexts.flatten().tolist()]
    return plot_curve(curve.contexts[:, 0], ends, curve.grades, curve.names[0], exact, [False] * len(exact))


def perform(run: Run, figures: Path | None = None) -> dict[str, Any]:
    torch.set_num_threads(1)
    case = CASES[run.case](run.seed)
    sampler, seconds = train(case, run)
    if figures is not None and case.shown is not None:
        figures.mkdir(parents=True, exist_ok=True)
        figure(sampler, case, run.seed).savefig(figures / f"{run.case}_{run.seed}.png", dpi=110)
    found = {**measure(sampler, case, run.seed), **case.more(sampler, run.seed)}
    return {**run._asdict(), "steps": run.max_steps or case.max_steps, "cpu_seconds": seconds, **found}


def in_words(found: dict[str, Any]) -> str:
    error, own = (max(map(abs, one["errors"])) for one in (found, found["own"]))
    held = f"hold {found['held']} of {len(found['errors'])}"
    parts = [
        f"{found['case']}, seed {found['seed']}, {found['steps']} steps: largest error {error:.4f} (own {own:.4f})",
        f"half-widths {_range(found['half_widths'], 4)} (own {_range(found['own']['half_widths'], 4)}), which {held}",
        f"ESS {_range(found['ess'], 2)}, mean divergence {found['divergence']:.4f}",
    ]
    if "heat_capacity_error" in found:
        energy, capacity = (f"{found[name]:.1f} standard errors" for name in ("energy_z", "heat_capacity_z"))
        parts.append(f"energies within {energy}, heat capacities {found['heat_capacity_error']:.1%} or {capacity}")
    parts.append(", ".join(f"{number} {grade}" for grade, number in Counter(found["grades"]).items()))
    return "; ".join([*parts, f"{found['cpu_seconds']:.0f} CPU s"])


def _range(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def main(args: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cases", choices=CASES, nargs="+", default=[*CASES], help="which families")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max_steps", type=count, help="training steps; by default those of the case")
    parser.add_argument("--figures", type=Path, help="a folder for curves of runs that are not in the file yet")
    parser.add_argument("--file", type=Path, default=Path("runs/families.jsonl"), help="of what was found")
    options: argparse.Namespace = parser.parse_args(args)
    for case in options.cases:
        for seed in options.seeds:
            run = Run(case, seed, options.max_steps or 0)
            found = kept(options.file, run, lambda run: perform(run, options.figures))
            print(in_words(found), flush=True)


if __name__ == "__main__":
    main()
