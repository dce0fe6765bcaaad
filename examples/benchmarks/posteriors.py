"""Posteriors written from their papers, by this library and by others: evidence, moments, intervals, and their cost.

    python -m examples.benchmarks.posteriors --methods diffsampler reference nuts pocomc dynesty nautilus --seeds 0
    python -m examples.benchmarks.posteriors --models mixture garch --methods diffsampler --seeds 0 1 2

Every run is a process of one thread. What it has found is a line of a JSON file as soon as it is done, and is not
repeated: start the command again to go on, or several at once, with other models or seeds, on the same file. A run that
takes longer than `--minutes` of CPU is cut off, and the line says so. `diffsampler` begins with the search that
`reference` is, and writes its line too.

The truth of log Z is exact, or by quadrature, where a model or `posterior_truths` knows it, else by bridge sampling of
NUTS's draws. Moments are those of free numbers, which have some, whatever a prior's tails are; where labels can be
exchanged, of components in the order of their means. Needs numpyro, pocomc, dynesty and nautilus-sampler for the
methods of these names.
"""

import argparse
import itertools
import logging
import multiprocessing
import resource
import signal
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler import InputError
from examples.benchmarks.arguments import make_parser
from examples.benchmarks.lines import append, read
from examples.benchmarks.physics import minutes
from examples.benchmarks.posterior_methods import METHODS, Found, effective_share, identified, labellings
from examples.benchmarks.posterior_tables import tables
from examples.posteriors import POSTERIORS, CubedModel

LEVELS = [k / 100 for k in range(1, 100)]


class Run(NamedTuple):
    """One model, by one method, from a seed."""

    model: str
    method: str
    seed: int


def perform(run: Run) -> list[dict[str, Any]]:
    """What the lines of a run say: one, and before it that of the search, where the method begins with one."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    model = POSTERIORS[run.model]()
    start = time.process_time()
    try:
        found = METHODS[run.method](run.model, model, run.seed)
    except InputError as error:
        return [{**run._asdict(), "failed": str(error), "cpu_seconds": time.process_time() - start}]
    line = describe(run, model, found, time.process_time() - start)
    if found.search is None:
        return [line]
    return [describe(run._replace(method="reference"), model, found.search, 0.0), line]


def describe(run: Run, model: CubedModel, found: Found, cpu_seconds: float) -> dict[str, Any]:
    """A line; a time that is among what was found stands before `cpu_seconds`."""
    line = {**run._asdict(), "dim": model.dim, "log_z": found.log_z, "low": found.low, "high": found.high}
    line |= {"num_target_evaluations": found.num_target_evaluations, "cpu_seconds": cpu_seconds}
    return line | found.more | moments(model, found)


def moments(model: CubedModel, found: Found) -> dict[str, Any]:
    """Means and variances of free numbers with their standard errors, quantiles, and the shares of labellings."""
    x = identified(model, found.x.reshape(-1, model.dim))
    weight = found.log_weight.reshape(-1).nan_to_num(nan=-torch.inf).double().softmax(0)
    mean = weight @ x
    square = (x - mean).square()
    variance = weight @ square
    figures = {"mean": mean, "variance": variance}
    if len(found.x) > 1:  # of Markov chains: by batches
        share = effective_share(identified(model, found.x))
        share = min(share, effective_share(square.reshape(found.x.shape)))
    else:
        share = found.share
    figures["mean_error"] = (weight.square() @ square / share).sqrt()
    figures["variance_error"] = (weight.square() @ (square - variance).square() / share).sqrt()
    order = x.argsort(0)
    below = weight[order].cumsum(0)
    rows = torch.stack(
        [torch.searchsorted(below.T.contiguous(), torch.full((model.dim, 1), p).double()) for p in LEVELS]
    )
    rows = rows.squeeze(-1).clamp(max=len(x) - 1)  # (levels, D)
    figures["quantiles"] = x.gather(0, order.gather(0, rows))
    line = {key: value.tolist() for key, value in figures.items()}
    return line | ({"shares": _shares(model, found, weight).tolist()} if labellings(model) > 1 else {})


def _shares(model: CubedModel, found: Found, weight: Tensor) -> Tensor:
    """Of the mass, for each order of the three means."""
    order = model.constrain(found.x.reshape(-1, model.dim).double())["mu"].argsort(-1)
    which = 2 * order[:, 0] + (order[:, 1] > order[:, 2])
    return torch.zeros(6, dtype=weight.dtype).index_add(0, which, weight)


def work(run: Run, file: Path, seconds: int) -> None:
    """Perform a run within so many CPU seconds, in a process of its own."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    done = read(file, Run)
    for line in perform(run):
        if Run(line["model"], line["method"], line["seed"]) not in done:
            append(file, line)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(POSTERIORS), default=list(POSTERIORS), metavar="MODEL")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["diffsampler"], metavar="METHOD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=minutes, default=6.0, help="of CPU, beyond which a run is cut off")
    parser.add_argument("--file", type=Path, default=Path("runs/posteriors.jsonl"), help="a line for each run")
    arguments: argparse.Namespace = parser.parse_args()
    seconds = int(60 * arguments.minutes)
    for run in map(Run._make, itertools.product(arguments.models, arguments.methods, arguments.seeds)):
        if run in read(arguments.file, Run):
            continue
        process = multiprocessing.get_context("spawn").Process(target=work, args=(run, arguments.file, seconds))
        process.start()
        process.join()
        if process.exitcode:
            is_late = process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL)
            what = f"cut off after {seconds} CPU seconds" if is_late else f"ended with {process.exitcode}"
            append(arguments.file, {**run._asdict(), "failed": what, "cpu_seconds": seconds if is_late else None})
    print(tables(list(read(arguments.file, Run).values())))


if __name__ == "__main__":
    main()
