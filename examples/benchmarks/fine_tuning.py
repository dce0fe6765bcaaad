"""A pretrained sampler under a reward: 25 Gaussians become 9 modes of other weights.

    python -m examples.benchmarks.fine_tuning --seeds 0 1 2

The example of relative trajectory balance (Venkatraman et al., 2024, arXiv:2405.20971, figure 1), for which only
pictures are published. The sampler of the 25 Gaussians walks by the closed form of its steps to that mixture, exact but
for their finite number, and is fine-tuned by the reward p_9 / p_25, of which the mean over exact draws is 1: log Z = 0.
Importance sampling of exact draws has an effective sample size of 0.276. Prints, for every seed, log Z of 20 000 draws
beside the mean reward of as many of the pretrained sampler, as they are, which is what it estimates; the effective
sample size before and after; the largest error of the nine masses, of weighted draws and of draws as they are; log Z by
both densities, from as many draws of `product_sampler`; and CPU seconds. Finished runs are lines of the file, and not
repeated.
"""

import itertools
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler import FunctionTarget, Sampler, fine_tune, fine_tuned
from diffsampler.baseline import GaussianComponents
from diffsampler.coordinates import SearchedCoordinates
from diffsampler.fine_tuning import mean_reward, product_sampler
from diffsampler.networks import LearnedVariance, MixtureControl, PreconditionedMLP
from diffsampler.processes import VariancePreserving
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.lines import kept

VARIANCE = 0.3
GRID = torch.tensor(list(itertools.product((-10.0, -5.0, 0.0, 5.0, 10.0), repeat=2)))
MODES = torch.tensor([(-10, -5), (-5, -10), (-5, 0), (10, -5), (0, 0), (0, 5), (5, -5), (5, 0), (5, 10)]).float()
WEIGHTS = torch.tensor([4, 10, 4, 5, 10, 5, 4, 15, 4]) / 61


class Run(NamedTuple):
    """A seed, how many steps a trajectory has, and those of training."""

    seed: int
    num_steps: int
    max_steps: int


def log_mixture(x: Tensor, means: Tensor, weights: Tensor) -> Tensor:
    """The log-density of a mixture of Gaussians of that variance, with shape (*), for x with shape (*, 2)."""
    squares = (x.unsqueeze(-2) - means.to(x)).square().sum(-1)
    log_density = (weights.to(x).log() - squares / (2 * VARIANCE)).logsumexp(-1)
    return log_density - torch.log(2 * torch.pi * torch.tensor(VARIANCE, dtype=x.dtype))


def log_prior(x: Tensor) -> Tensor:
    return log_mixture(x, GRID, torch.full((len(GRID),), 1 / len(GRID)))


def log_reward(x: Tensor) -> Tensor:
    return log_mixture(x, MODES, WEIGHTS) - log_prior(x)


def largest_error(x: Tensor, log_weight: Tensor) -> float:
    """Of the nine masses by draws with shapes (n, 2) and (n), relative."""
    weight = log_weight.softmax(0)
    nearest = torch.cdist(x, MODES.to(x)).argmin(1)
    mass = torch.zeros(len(MODES), dtype=weight.dtype).index_add(0, nearest, weight)
    return float((mass / WEIGHTS - 1).abs().max())


def pretrained(num_steps: int, seed: int) -> Sampler:
    """A sampler of the 25 Gaussians, each step in closed form; coordinates are those that a search finds."""
    target = FunctionTarget(log_prior, dim=2)
    coordinates = SearchedCoordinates(target)
    learned = partial(LearnedVariance, network=partial(PreconditionedMLP, width=128), width=128)
    control = partial(MixtureControl, network=learned, mixture=coordinates.get_mixture, step=1 / num_steps)
    parts = {"process": VariancePreserving, "control": control, "flow": None}
    sampler = Sampler(target, grid=num_steps, coordinates=coordinates, **parts)
    sampler.search(seed)
    coordinates.mixture = in_coordinates(coordinates)
    return sampler


def in_coordinates(coordinates: SearchedCoordinates) -> GaussianComponents:
    """The 25 Gaussians as they are in z, where x is linear in it."""
    origin = torch.zeros(2, dtype=torch.float64)
    stretch = torch.autograd.functional.jacobian(lambda z: coordinates(z.unsqueeze(0))[0][0], origin)
    factor = torch.linalg.cholesky(VARIANCE * torch.linalg.inv(stretch.T @ stretch))
    return GaussianComponents(coordinates.inverse(GRID.double()), factor.expand(len(GRID), 2, 2))


def perform(run: Run) -> dict[str, Any]:
    """The search, the training, and what they have given."""
    quietly = {"enable_progress_bar": False, "accelerator": "cpu"}
    reward = FunctionTarget(log_reward, dim=2)
    start = time.process_time()
    sampler = pretrained(run.num_steps, run.seed)
    searched = time.process_time()
    tuned = fine_tune(sampler, reward, run.max_steps, run.seed, **quietly)
    end = time.process_time()
    before = fine_tuned(sampler, reward).estimate_log_z(20_000, seed=1)
    truth = mean_reward(sampler, reward, 20_000, seed=2, weighted=False).estimate
    x, log_weight = tuned.sample(20_000, seed=3, return_log_weights=True)
    estimate = tuned.estimate_from(log_weight)
    product = product_sampler(tuned).estimate_log_z(20_000, seed=5)
    return {
        **run._asdict(),
        **{name: getattr(estimate, name) for name in ("log_z", "low", "high", "ess", "khat")},
        "mean_reward": [truth.log_z, truth.low, truth.high],
        "product": [product.log_z, product.low, product.high, product.ess],
        "ess_before": before.ess,
        "ess_of_pretrained": sampler.estimate_log_z(20_000, seed=4).ess,
        "error_of_masses": largest_error(x, log_weight),
        "error_of_masses_drawn": largest_error(x, torch.zeros_like(log_weight)),
        "seconds": [searched - start, end - searched],
    }


def as_text(found: dict[str, Any]) -> str:
    mean, low, high = found["mean_reward"]
    product, low_of_product, high_of_product, ess = found["product"]
    searching, training = found["seconds"]
    return (
        f"seed {found['seed']}: log Z {found['log_z']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}], "
        f"mean reward {mean:+.4f} [{low:+.4f}, {high:+.4f}], ESS {found['ess_before']:.3f} -> {found['ess']:.3f} "
        f"(pretrained {found['ess_of_pretrained']:.3f}), masses within {found['error_of_masses']:.1%}, as drawn "
        f"{found['error_of_masses_drawn']:.1%}, by both densities {product:+.4f} [{low_of_product:+.4f}, "
        f"{high_of_product:+.4f}], ESS {ess:.3f}, {searching:.0f} + {training:.0f} CPU s"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of search, training and all noise")
    parser.add_argument("--num_steps", type=count, default=128, help="of a trajectory")
    parser.add_argument("--max_steps", type=count, default=100, help="of fine-tuning")
    parser.add_argument("--file", type=Path, default=Path("runs/fine_tuning.jsonl"), help="of finished runs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for seed in given.seeds:
        run = Run(seed, given.num_steps, given.max_steps)
        print(as_text(kept(given.file, run, perform)), flush=True)


if __name__ == "__main__":
    main()
