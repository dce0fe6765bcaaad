"""On-policy: the sampler's own rollouts."""

from typing import TYPE_CHECKING

import torch

from diffsampler.behaviours.base import Behaviour
from diffsampler.trajectory import Path

if TYPE_CHECKING:
    from diffsampler.sampler import Sampler

__all__ = ["OnPolicy"]


class OnPolicy(Behaviour):
    """Rollouts of the sampler as it is."""

    on_policy = True

    def paths(self, sampler: "Sampler", n: int, generator: torch.Generator, progress: float) -> Path:
        return sampler.rollout(n, generator)
