"""Sample a density of your own: write its log, train, and read off log Z with its interval.

Run as `python examples/own_density.py`.
"""

from functools import partial

import torch

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.processes import PinnedBrownian


def log_prob(x: torch.Tensor) -> torch.Tensor:
    """A tilted ring of radius 2 in the plane, not normalised."""
    radius = x.norm(dim=-1)
    return -(((radius - 2) / 0.3) ** 2) + 0.5 * x[..., 0]


if __name__ == "__main__":
    target = FunctionTarget(log_prob, dim=2)
    sampler = Sampler(target, process=partial(PinnedBrownian, sigma=2.0), grid=50)
    fit(sampler, max_steps=500, lr=3e-3, seed=0)
    estimate = sampler.estimate_log_z(num_samples=10_000, seed=1)
    print(f"log Z = {estimate.log_z:.3f}, 95 % interval [{estimate.low:.3f}, {estimate.high:.3f}]")
    print(f"ELBO {estimate.elbo:.3f}, ESS {estimate.ess:.0%}, Pareto khat {estimate.khat:.2f}")
    print(*estimate.warnings, sep="\n")
    print("five samples:", sampler.sample(5, seed=2), sep="\n")
