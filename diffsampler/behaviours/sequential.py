"""Paths that sequential Monte Carlo along the flow has come to."""

import torch

from diffsampler.behaviours.base import Behaviour
from diffsampler.errors import InputError, check_positive
from diffsampler.paths import Dynamics, Path, resampled_rollout


class SequentialMonteCarlo(Behaviour):
    """The sampler's own rollouts, resampled on the way and at the end where their weights are uneven.

    As the source of a `Replay`, its end points stay and are walked back again.

    References:
        Sequential Controlled Langevin Diffusions, Chen et al., 2025, arXiv:2412.07081.

    Arguments:
        ess_threshold: paths are resampled where their effective sample size falls below this share of them; in (0, 1].
    """

    def __init__(self, ess_threshold: float = 0.3) -> None:
        if check_positive("ess_threshold", ess_threshold) > 1:
            raise InputError(f"ess_threshold must be at most 1, got {ess_threshold!r}.")
        self.ess_threshold = ess_threshold

    def check(self, dynamics: Dynamics) -> None:
        if dynamics.policy.flow is None:
            raise InputError(
                "behaviour SequentialMonteCarlo goes along the flow, but the sampler has flow=None. Pass "
                "flow=ForwardLookingFlow, with a loss that trains it, such as ChunkBalance; or use OnPolicy."
            )

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        return resampled_rollout(dynamics, n, self.ess_threshold, generator)
