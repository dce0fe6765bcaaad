"""Thirty-two modes in up to 100 dimensions without the score: log Z of steps within a trust region, beside others.

    python -m examples.benchmarks.trust_region --dims 2 50 100 --seeds 0 1 2
    python -m examples.benchmarks.trust_region --losses trust_region log_variance proximal_matching --dims 50 --seeds 0

The target is the many well of Blessing et al., 2025, arXiv:2508.12511, log R = -sum of (x_i^2 - 4)^2 over the first m
coordinates - sum of x_i^2 / 2 over the others, with m = 5, and m = 2 in two dimensions. log Z is known by quadrature.
No score is asked for: the target has none to give. Every run is on one thread and has as many training steps, of as
many transitions, whatever the loss.

Prints the error of log Z by importance weights of fresh draws, with its 95 % interval, their effective share, the least
and the largest mass of a mode over its truth, CPU seconds with the estimate, and evaluations of the target.

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

from diffsampler import Sampler, Target, fit
from diffsampler.behaviours import Behaviour, OnPolicy, WeightedPaths
from diffsampler.losses import LogVariance, Matching, Objective, TrustRegionLogVariance
from diffsampler.networks import LearnedVariance, PreconditionedMLP
from diffsampler.processes import VariancePreserving
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.lines import kept

LOSSES = ("trust_region", "log_variance", "proximal_matching")
NUM_WELLS, SEPARATION = 5, 4.0
NUM_STEPS, LR, BATCH_SIZE = 24, 3e-3, 512
NUM_PATHS, STEPS_PER_SET, TRUST_REGION = 16_384, 100, 1.0
NUM_SHOWN = 20_000  # draws that masses of modes are of


class Run(NamedTuple):
    """Which loss, in how many dimensions, a seed, and how long."""

    loss: str
    dim: int
    seed: int
    max_steps: int
    num_draws: int


class Wells(Target):
    """log R = -sum of (x_i^2 - 4)^2 over the first coordinates - sum of x_i^2 / 2 over the others."""

    differentiable = False

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.num_wells = min(NUM_WELLS, dim)
        x = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
        of_well = float(torch.trapezoid(torch.exp(-((x.square() - SEPARATION) ** 2)), x).log())
        self.log_z = self.num_wells * of_well + (dim - self.num_wells) * 0.5 * math.log(2 * math.pi)

    def log_prob(self, x: Tensor) -> Tensor:
        wells, others = x[..., : self.num_wells], x[..., self.num_wells :]
        return -((wells.square() - SEPARATION) ** 2).sum(-1) - 0.5 * others.square().sum(-1)

    def masses(self, x: Tensor, log_weight: Tensor) -> Tensor:
        """Of all modes, by weighted draws, over the truth, which is the same for each."""
        mode = ((x[:, : self.num_wells] > 0) * 2 ** torch.arange(self.num_wells)).sum(1)
        num_modes = 2**self.num_wells
        return torch.zeros(num_modes, dtype=torch.float64).index_add(0, mode, log_weight.softmax(0)) * num_modes


def make_parts(loss: str) -> tuple[Objective, Behaviour]:
    if loss == "trust_region":
        return TrustRegionLogVariance(NUM_PATHS, STEPS_PER_SET, TRUST_REGION), OnPolicy()
    if loss == "log_variance":
        return LogVariance(), OnPolicy()
    transitions = BATCH_SIZE * NUM_STEPS
    return Matching(transitions, use_score=False), WeightedPaths(NUM_PATHS, trust_region=TRUST_REGION)


def perform(run: Run) -> dict[str, Any]:
    torch.set_num_threads(1)
    start = time.process_time()
    target = Wells(run.dim)
    control = partial(LearnedVariance, network=PreconditionedMLP)
    sampler = Sampler(target, process=VariancePreserving, control=control, flow=None, grid=NUM_STEPS)
    loss, behaviour = make_parts(run.loss)
    fit(
        sampler,
        max_steps=run.max_steps,
        seed=run.seed,
        loss=loss,
        behaviour=behaviour,
        batch_size=BATCH_SIZE,
        lr=LR,
        steps_per_epoch=max(1, run.max_steps // 5),
        num_eval_samples=2000,
        enable_progress_bar=False,
        accelerator="cpu",
    )
    trained = time.process_time() - start
    evaluations = sampler.num_target_evaluations
    estimate = sampler.estimate_log_z(run.num_draws, seed=1000 + run.seed)
    total = time.process_time() - start
    masses = target.masses(*sampler.sample(NUM_SHOWN, seed=2000 + run.seed, return_log_weights=True))
    return {
        **run._asdict(),
        "error": estimate.log_z - target.log_z,
        "low": estimate.low - target.log_z,
        "high": estimate.high - target.log_z,
        "elbo": estimate.elbo - target.log_z,
        "ess": estimate.ess,
        "least_mass": float(masses.min()),
        "largest_mass": float(masses.max()),
        "training_seconds": trained,
        "cpu_seconds": total,
        "evaluations": evaluations,
    }


def in_words(found: dict[str, Any]) -> str:
    return (
        f"{found['loss']}, d = {found['dim']}, seed {found['seed']}: log Z error {found['error']:+.4f} "
        f"[{found['low']:+.4f}, {found['high']:+.4f}], ESS {found['ess']:.3f}, ELBO {found['elbo']:+.2f}, masses "
        f"{found['least_mass']:.2f} to {found['largest_mass']:.2f}, {found['cpu_seconds']:.0f} CPU s, "
        f"{found['evaluations']:,} evaluations"
    )


def main(args: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--losses", choices=LOSSES, nargs="+", default=["trust_region"])
    parser.add_argument("--dims", type=count, nargs="+", default=[2, 50, 100], help="dimensions, at least 2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max_steps", type=count, default=3500, help="training steps")
    parser.add_argument("--num_draws", type=count, default=2_000_000, help="of the estimate of log Z")
    parser.add_argument("--file", type=Path, default=Path("runs/trust_region.jsonl"), help="of what was found")
    options: argparse.Namespace = parser.parse_args(args)
    for loss in options.losses:
        for dim in options.dims:
            for seed in options.seeds:
                run = Run(loss, dim, seed, options.max_steps, options.num_draws)
                print(in_words(kept(options.file, run, perform)), flush=True)


if __name__ == "__main__":
    main()
