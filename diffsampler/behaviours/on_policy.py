"""On-policy: the sampler's own rollouts."""

import torch

from diffsampler.behaviours.base import Behaviour
from diffsampler.paths import Dynamics, Path, rollout

__all__ = ["OnPolicy"]


class OnPolicy(Behaviour):
    """Rollouts of the sampler as it is."""

    on_policy = True

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        return rollout(dynamics, n, generator, keep_activations=True)
