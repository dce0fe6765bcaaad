"""Nine modes from comparisons alone: how near labels of pairs bring a sampler to R / Z, within minutes of one core.

    python -m examples.benchmarks.order_preserving --seeds 0 1 2
    python -m examples.benchmarks.order_preserving --labels hard --seeds 0

Every run is the preset `order_preserving` on `GaussianMixture9` on one thread: no score, no log R but through the
labels. Prints the correlation of log densities of the sampler with log R at fresh draws of the target, by the
probability flow (`Sampler.log_prob`) and by paths rolled back from these draws; the share of draws in the emptiest
and in the fullest mode, over a ninth; the mean log R of draws, whose truth is -3.83; and CPU seconds of training.

What a run has found is a line of a JSON file as soon as it is done, and is not repeated.
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler import Sampler, fit
from diffsampler.behaviours import Replay
from diffsampler.coordinates import ScaledCoordinates
from diffsampler.losses import BradleyTerryLabels, HardLabels, OrderPreserving
from diffsampler.networks import LearnedVariance, PreconditionedMLP
from diffsampler.paths import rolled_back_log_weight
from diffsampler.processes import VariancePreserving
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.lines import kept
from targets import GaussianMixture9

LABELS = {"Bradley-Terry": BradleyTerryLabels, "hard": HardLabels}
NUM_STEPS, LR, SCALE = 32, 3e-3, 4.0
NUM_POINTS, NUM_DRAWS, NUM_PATHS = 2000, 20_000, 64


class Run(NamedTuple):
    """Which labels, a seed, and how long."""

    labels: str
    seed: int
    max_steps: int
    batch_size: int
    rivals: int


def make_sampler() -> Sampler:
    control = partial(LearnedVariance, network=PreconditionedMLP)
    return Sampler(
        GaussianMixture9(),
        process=VariancePreserving,
        control=control,
        flow=None,
        grid=NUM_STEPS,
        coordinates=partial(ScaledCoordinates, scale=SCALE),
    )


def train(sampler: Sampler, run: Run) -> float:
    """The CPU seconds that it takes."""
    start = time.process_time()
    fit(
        sampler,
        max_steps=run.max_steps,
        seed=run.seed,
        loss=OrderPreserving(LABELS[run.labels](run.rivals)),
        behaviour=Replay(),
        batch_size=run.batch_size,
        lr=LR,
        steps_per_epoch=max(1, run.max_steps // 5),
        num_eval_samples=500,
        enable_progress_bar=False,
        accelerator="cpu",
    )
    return time.process_time() - start


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def measure(sampler: Sampler, seed: int) -> dict[str, float]:
    """What it has learned, by draws that no training saw."""
    target, generator = sampler.target, torch.Generator().manual_seed(1000 + seed)
    x = target.sample(NUM_POINTS, generator)
    truth = target.log_prob(x).double()
    # The sampler's density at x is the mean of P_F / P_B over paths rolled back from it, log R less log w.
    log_weight = rolled_back_log_weight(sampler.dynamics, x.repeat(NUM_PATHS, 1), generator).view(NUM_PATHS, -1)
    by_paths = (truth - log_weight).logsumexp(0) - math.log(NUM_PATHS)
    draws = sampler.sample(NUM_DRAWS, generator=generator)
    return {
        "correlation": correlation(sampler.log_prob(x), truth),
        "correlation_by_paths": correlation(by_paths, truth),
        "mean_log_prob": float(target.log_prob(draws).double().mean()),
        **target.diagnostics(draws),
    }


def perform(run: Run) -> dict[str, Any]:
    torch.set_num_threads(1)
    sampler = make_sampler()
    seconds = train(sampler, run)
    estimate = sampler.estimate_log_z(NUM_DRAWS, seed=run.seed)
    weights = {"ess": estimate.ess, "log_z": estimate.log_z, "low": estimate.low, "high": estimate.high}
    return {**run._asdict(), "cpu_seconds": seconds, **measure(sampler, run.seed), **weights}


def in_words(found: dict[str, Any]) -> str:
    return (
        f"{found['labels']}, seed {found['seed']}: correlation {found['correlation']:.4f} "
        f"(by paths {found['correlation_by_paths']:.4f}), masses {found['min_mode_mass_ratio']:.3f} to "
        f"{found['max_mode_mass_ratio']:.3f} of a ninth, mean log R {found['mean_log_prob']:.2f}, ESS "
        f"{found['ess']:.3f}, log Z {found['log_z']:.4f}, {found['cpu_seconds']:.0f} CPU s"
    )


def main(args: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--labels", choices=LABELS, default="Bradley-Terry", help="who says which point is better")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max_steps", type=count, default=5000, help="training steps")
    parser.add_argument("--batch_size", type=count, default=256, help="trajectories of a step")
    parser.add_argument("--rivals", type=count, default=127, help="with how many others each point is compared")
    parser.add_argument("--file", type=Path, default=Path("runs/order_preserving.jsonl"), help="of what was found")
    options: argparse.Namespace = parser.parse_args(args)
    for seed in options.seeds:
        run = Run(options.labels, seed, options.max_steps, options.batch_size, options.rivals)
        print(in_words(kept(options.file, run, perform)), flush=True)


if __name__ == "__main__":
    main()
