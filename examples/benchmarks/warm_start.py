"""What a warm start costs beside a start from nothing: evaluations until log Z of new data is known as well.

A sampler is fitted to a density, and then `fit(sampler, target=new)` to another one of the same kind: phi^4 at another
hopping parameter, a logistic regression with other data or with more. Beside it stands a fit of the new density from
nothing, with the same seed. Both end by themselves, when log Z is known to +- `tolerance` and graded trustworthy; the
evaluations of searches, checks and validations are counted on both sides, those of the old fit on neither.

Usage: python -m examples.benchmarks.warm_start [--tasks NAME ...] [--seeds SEED ...] [--file FILE]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffsampler import Sampler, Target, assess, fit
from examples.benchmarks.arguments import make_parser
from examples.benchmarks.lines import kept
from targets import LogisticRegression, Phi4Hopping

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
NUM_ROWS, NUM_WEIGHTS = 200, 6


class Run(NamedTuple):
    """One comparison."""

    task: str
    seed: int


def phi4(seed: int) -> tuple[Target, Target]:
    """4 x 4 sites, from kappa 0.25 to 0.26."""
    return Phi4Hopping([4, 4], kappa=0.25), Phi4Hopping([4, 4], kappa=0.26)


def phi4_far(seed: int) -> tuple[Target, Target]:
    """4 x 4 sites, from kappa 0.25 to 0.27, where weights of the old draws are too uneven."""
    return Phi4Hopping([4, 4], kappa=0.25), Phi4Hopping([4, 4], kappa=0.27)


def phi4_coupling(seed: int) -> tuple[Target, Target]:
    """4 x 4 sites at kappa 0.25, from lambda 0.022 to 0.03."""
    return Phi4Hopping([4, 4], kappa=0.25), Phi4Hopping([4, 4], kappa=0.25, coupling=0.03)


def regression_replaced(seed: int) -> tuple[Target, Target]:
    """Other data of the same law."""
    return _regression(_data(2 * seed, NUM_ROWS)), _regression(_data(2 * seed + 1, NUM_ROWS))


def regression_extended(seed: int) -> tuple[Target, Target]:
    """The same data, and a quarter more."""
    x, y = _data(2 * seed, NUM_ROWS)
    more_x, more_y = _data(2 * seed + 1, NUM_ROWS // 4)
    return _regression((x, y)), _regression((torch.cat([x, more_x]), torch.cat([y, more_y])))


TASKS: dict[str, Callable[[int], tuple[Target, Target]]] = {
    "phi4": phi4,
    "phi4_far": phi4_far,
    "phi4_coupling": phi4_coupling,
    "regression_replaced": regression_replaced,
    "regression_extended": regression_extended,
}


def _data(seed: int, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one regression: its weights are the same for all seeds."""
    generator = torch.Generator().manual_seed(1000 + seed)
    weights = torch.linspace(-1.5, 1.5, NUM_WEIGHTS).double()
    x = torch.randn(num_rows, NUM_WEIGHTS, generator=generator).double()
    y = (torch.rand(num_rows, generator=generator).double() < (x @ weights).sigmoid()).double()
    return x, y


def _regression(data: tuple[torch.Tensor, torch.Tensor]) -> Target:
    return LogisticRegression(*data, prior_scale=2.0)


def _cost(sampler: Sampler, history: list[dict[str, Any]], seed: int, begun: float) -> dict[str, Any]:
    """What a fit has spent, and what it has come to."""
    spent, searched = sampler.num_target_evaluations, sampler.search_cost
    found = assess(sampler, seed=seed + 1, history=history)
    estimate = found.estimate
    return {
        "evaluations": spent,
        "search": searched,
        "log_z": estimate.log_z,
        "half_width": (estimate.high - estimate.low) / 2,
        "grade": found.verdict.grade,
        "seconds": time.process_time() - begun,
    }


def compared(run: Run) -> dict[str, Any]:
    """Both fits of the new density."""
    old, new = TASKS[run.task](run.seed)
    sampler = Sampler(old)
    fit(sampler, seed=run.seed, **QUIET)
    begun = time.process_time()
    history = fit(sampler, seed=run.seed + 100, target=new, **QUIET)
    warm = _cost(sampler, history, run.seed, begun)
    is_warm = sampler.coordinates.is_warm
    begun, other = time.process_time(), Sampler(TASKS[run.task](run.seed)[1])
    history = fit(other, seed=run.seed + 100, **QUIET)
    return {
        **run._asdict(),
        "exact": new.log_z,
        "is_warm": is_warm,
        "warm": warm,
        "cold": _cost(other, history, run.seed, begun),
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--file", type=Path, default=Path("runs/warm_start.jsonl"), help="of finished runs, which are kept"
    )
    arguments: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'task':<22}{'seed':>5}  {'start':<8}{'evaluations':>12}{'search':>12}{'log Z':>10}{'+-':>8}  "
        f"{'grade':<14}{'CPU s':>7}{'share':>7}"
    )
    for task in arguments.tasks:
        for seed in arguments.seeds:
            one = kept(arguments.file, Run(task, seed), compared)
            share = one["warm"]["evaluations"] / one["cold"]["evaluations"]
            for start in ("cold", "warm"):
                cost = one[start]
                name = start if start == "cold" or one["is_warm"] else "as cold"
                print(
                    f"{task:<22}{seed:>5}  {name:<8}{cost['evaluations']:>12,}{cost['search']:>12,}"
                    f"{cost['log_z']:>10.4f}{cost['half_width']:>8.4f}  {cost['grade']:<14}{cost['seconds']:>7.0f}"
                    f"{share:>7.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
