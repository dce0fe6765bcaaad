"""The Föllmer drift by Monte Carlo, without training and as a start for it, on mixtures of Gaussians.

Usage: python -m examples.benchmarks.follmer [--max_steps N] [--seeds SEED ...]
"""

import time
from functools import partial

import torch

from diffsampler import Sampler, fit
from diffsampler.losses import LogVariance
from diffsampler.networks import FollmerDrift, FourierMLP, LangevinControl, LearnedVariance
from diffsampler.processes import PinnedBrownian
from diffsampler.processes.grids import PowerGrid
from examples.benchmarks.arguments import count, make_parser
from targets import GaussianMixture9, GaussianMixture25

TARGETS = {"GaussianMixture9": (GaussianMixture9, 4.0), "GaussianMixture25": (GaussianMixture25, 7.0)}
WIDTHS = partial(LearnedVariance, network=FourierMLP)
CONTROLS = {
    "LangevinControl": partial(LearnedVariance, network=partial(LangevinControl, network=FourierMLP)),
    "FollmerDrift 64": partial(FollmerDrift, network=WIDTHS, num_draws=64),
    "FollmerDrift 256": partial(FollmerDrift, network=WIDTHS, num_draws=256),
}
TRAINED = ("LangevinControl", "FollmerDrift 64")
NUM_STEPS, NUM_SAMPLES = 30, 5000


def report(name: str, sampler: Sampler, seed: int, seconds: float) -> None:
    """One line."""
    before = sampler.num_target_evaluations
    found = sampler.estimate_log_z(NUM_SAMPLES, seed=seed)
    print(
        f"{name:<46}{seed:>5}{found.log_z:>9.3f}  [{found.low:.3f}, {found.high:.3f}]{found.ess:>7.3f}"
        f"{found.elbo:>8.3f}{sampler.num_target_evaluations - before:>13,}{before:>14,}{seconds:>8.1f}",
        flush=True,
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--max_steps", type=count, default=300, help="training steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'target, control, steps':<46}{'seed':>5}{'log Z':>9}  {'interval':<16}{'ESS':>7}{'ELBO':>8}"
        f"{'evaluations':>13}{'training':>14}{'CPU s':>8}"
    )
    for seed in arguments.seeds:
        for target, (make, sigma) in TARGETS.items():
            for control, part in CONTROLS.items():
                process = partial(PinnedBrownian, sigma=sigma)
                sampler = Sampler(make(), process, part, flow=None, grid=PowerGrid(NUM_STEPS, 2.0))
                report(f"{target}, {control}, 0", sampler, seed, 0.0)
                if control not in TRAINED:
                    continue
                begun = time.process_time()
                fit(
                    sampler,
                    arguments.max_steps,
                    seed,
                    loss=LogVariance(),
                    batch_size=128,
                    lr=3e-3,
                    enable_progress_bar=False,
                    accelerator="cpu",
                )
                took = time.process_time() - begun
                report(f"{target}, {control}, {arguments.max_steps}", sampler, seed, took)


if __name__ == "__main__":
    main()
