"""A pretrained sampler whose control uses the score, under a reward: 9 equal Gaussians get masses that double.

    python -m examples.benchmarks.fine_tuning_by_score --seeds 0 1 2

`GaussianMixture9` is learned with `LangevinControl` by log-variance, and fine-tuned by the ratio of the same nine
Gaussians with masses 1, 2, 4, ..., 256, over 511, to itself as reward: of exact draws its mean is 1, log Z = 0, and
weights by it have an effective sample size of 0.332. Prints, for every seed, log Z of 20 000 draws beside the mean
reward of as many of the pretrained sampler, as they are, which is what it estimates; effective sample sizes; log Z by
both densities, whose truth is 0, of as many draws of `product_sampler`, before and after as many steps of training by
both; the largest relative error of a mass of at least 0.03, by weights of both densities before; evaluations in
fine-tuning, of the reward, and of the pretrained density for its score; and CPU seconds of pretraining, of fine-tuning,
and of training by both. Finished runs are lines of the file, and not repeated.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler import FunctionTarget, Sampler, fine_tune, fine_tuned, fit
from diffsampler.behaviours import OnPolicy
from diffsampler.fine_tuning import mean_reward, product_sampler
from diffsampler.losses import LogVariance
from diffsampler.networks import FourierMLP, LangevinControl, LearnedVariance
from diffsampler.processes import VariancePreserving
from examples.benchmarks.arguments import count, make_parser
from examples.benchmarks.lines import kept
from targets import GaussianMixture, GaussianMixture9

SIGMA, GATE, LR, BATCH_SIZE = 4.5, 0.1, 6e-3, 512  # of the process, of its control, and of pretraining
LEAST_MASS = 0.03
NUM_DRAWS = 20_000


class Run(NamedTuple):
    """A seed, how many steps a trajectory has, and those of both trainings."""

    seed: int
    num_steps: int
    pretraining_steps: int
    max_steps: int


def tilted() -> GaussianMixture:
    """The same nine Gaussians, with masses that double from one to the next."""
    nine = GaussianMixture9()
    return GaussianMixture(nine.means, nine.scales, 2.0 ** torch.arange(len(nine.means)))


def make_reward() -> FunctionTarget:
    before, after = GaussianMixture9(), tilted()
    return FunctionTarget(lambda x: after.log_prob(x) - before.log_prob(x), dim=2, differentiable=False)


def largest_error(x: Tensor, log_weight: Tensor) -> float:
    """Relative, of masses that are not small, by draws with shapes (n, 2) and (n)."""
    after = tilted()
    nearest = torch.cdist(x.double(), after.means).argmin(1)
    mass = torch.zeros(len(after.means), dtype=torch.float64).index_add(0, nearest, log_weight.softmax(0))
    return float((mass / after.weights - 1)[after.weights > LEAST_MASS].abs().max())


def perform(run: Run) -> dict[str, Any]:
    """Both trainings, and what they have given."""
    quietly = {"enable_progress_bar": False, "accelerator": "cpu"}
    reward, start = make_reward(), time.process_time()
    control = partial(LearnedVariance, network=partial(LangevinControl, network=FourierMLP, initial_gate=GATE))
    parts = {"process": partial(VariancePreserving, sigma=SIGMA), "control": control, "flow": None}
    sampler = Sampler(GaussianMixture9(), grid=run.num_steps, **parts)
    method = {"loss": LogVariance(), "behaviour": OnPolicy(), "lr": LR, "batch_size": BATCH_SIZE}
    fit(sampler, run.pretraining_steps, run.seed, **method, **quietly)
    pretrained = time.process_time()
    tuned = fine_tune(sampler, reward, run.max_steps, run.seed, **quietly)
    end = time.process_time()
    evaluations = [tuned.num_target_evaluations, tuned.num_score_evaluations]
    before = fine_tuned(sampler, reward).estimate_log_z(NUM_DRAWS, seed=1)
    truth = mean_reward(sampler, reward, NUM_DRAWS, seed=2, weighted=False).estimate
    estimate = tuned.estimate_log_z(NUM_DRAWS, seed=3)
    product = product_sampler(tuned)
    x, log_weight = product.sample(NUM_DRAWS, seed=5, return_log_weights=True)
    both = product.estimate_from(log_weight)
    trained_on = time.process_time()
    fit(product, run.max_steps, run.seed, **quietly)
    product_seconds = time.process_time() - trained_on
    later = product.estimate_log_z(NUM_DRAWS, seed=6)
    return {
        **run._asdict(),
        **{name: getattr(estimate, name) for name in ("log_z", "low", "high", "ess", "khat")},
        "mean_reward": [truth.log_z, truth.low, truth.high],
        "product": [both.log_z, both.low, both.high, both.ess],
        "product_trained": [later.log_z, later.low, later.high, later.ess],
        "ess_before": before.ess,
        "ess_of_pretrained": sampler.estimate_log_z(NUM_DRAWS, seed=4).ess,
        "error_of_masses": largest_error(x, log_weight),
        "evaluations": evaluations,
        "seconds": [pretrained - start, end - pretrained, product_seconds],
    }


def as_text(found: dict[str, Any]) -> str:
    mean, low, high = found["mean_reward"]
    product, low_of_product, high_of_product, ess = found["product"]
    of_reward, of_score = found["evaluations"]
    later, low_later, high_later, ess_later = found["product_trained"]
    pretraining, training, on_product = found["seconds"]
    return (
        f"seed {found['seed']}: log Z {found['log_z']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}], "
        f"mean reward {mean:+.4f} [{low:+.4f}, {high:+.4f}], ESS {found['ess_before']:.3f} -> {found['ess']:.3f} "
        f"(pretrained {found['ess_of_pretrained']:.3f}), by both densities {product:+.4f} [{low_of_product:+.4f}, "
        f"{high_of_product:+.4f}], ESS {ess:.3f}, masses within {found['error_of_masses']:.1%}, "
        f"trained by both {later:+.4f} [{low_later:+.4f}, {high_later:+.4f}], ESS {ess_later:.3f}, evaluations "
        f"{of_reward:,} of the reward and {of_score:,} of the score, {pretraining:.0f} + {training:.0f} + "
        f"{on_product:.0f} CPU s"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of both trainings")
    parser.add_argument("--num_steps", type=count, default=50, help="of a trajectory")
    parser.add_argument("--pretraining_steps", type=count, default=500, help="of the sampler of nine Gaussians")
    parser.add_argument("--max_steps", type=count, default=300, help="of fine-tuning")
    parser.add_argument("--file", type=Path, default=Path("runs/fine_tuning_by_score.jsonl"), help="of finished runs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for seed in given.seeds:
        run = Run(seed, given.num_steps, given.pretraining_steps, given.max_steps)
        print(as_text(kept(given.file, run, perform)), flush=True)


if __name__ == "__main__":
    main()
