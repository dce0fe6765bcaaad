"""Peak memory of one DGFS training step on ManyWell-32, batch 256, for growing numbers of steps T.

`python -m examples.benchmarks.memory [--steps 250 500 1000] [--batch_size 256] [--checkpoint_activations true]`

Each T runs in a process of its own; the figure is its peak resident memory, and what it exceeds T = 1 by.
"""

import argparse
import resource
import subprocess
import sys

from examples.benchmarks.arguments import count, make_parser

CHOICES = {"auto": None, "true": True, "false": False}


def peak_of_step(num_steps: int, batch_size: int, checkpoint_activations: bool | None) -> float:
    """Run one step here and return the peak resident memory of this process, in GB."""
    import torch

    from diffsampler import Sampler
    from diffsampler.losses import SubTrajectoryBalance
    from diffsampler.paths import evaluate, rollout
    from targets import ManyWell

    torch.set_num_threads(1)
    sampler = Sampler(ManyWell(32), grid=num_steps, checkpoint_activations=checkpoint_activations)
    dynamics = sampler.dynamics
    SubTrajectoryBalance()(evaluate(dynamics, rollout(dynamics, batch_size))).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", nargs="+", type=count, default=[250, 500, 1000], help="of a trajectory")
    parser.add_argument("--batch_size", type=count, default=256, help="trajectories")
    parser.add_argument(
        "--checkpoint_activations", choices=CHOICES, default="auto", help="auto is None in Python, null in a file"
    )
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(peak_of_step(arguments.child, arguments.batch_size, CHOICES[arguments.checkpoint_activations]))
        return
    command = [sys.executable, "-m", "examples.benchmarks.memory", "--batch_size", str(arguments.batch_size)]
    command += ["--checkpoint_activations", arguments.checkpoint_activations, "--child"]
    peaks = {}
    for num_steps in [1, *arguments.steps]:
        peaks[num_steps] = float(subprocess.run([*command, str(num_steps)], capture_output=True, check=True).stdout)
    for num_steps in arguments.steps:
        added = peaks[num_steps] - peaks[1]
        print(f"T = {num_steps:5d}: peak {peaks[num_steps]:.2f} GB, {1e3 * added / num_steps:.2f} MB a step")


if __name__ == "__main__":
    main()
