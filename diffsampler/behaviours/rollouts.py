"""The sampler's own rollouts, as they are or with wider noise early in training."""

import torch

from diffsampler.behaviours.base import Behaviour
from diffsampler.errors import InputError, check_non_negative
from diffsampler.paths import Dynamics, Path, rollout


class OnPolicy(Behaviour):
    """Rollouts of the sampler as it is."""

    on_policy = True

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        return rollout(dynamics, n, generator, keep_activations=True)


class Exploration(Behaviour):
    """Rollouts whose noise is wider by a factor that falls linearly from 1 + `excess` to 1.

    References:
        Improved off-policy training of diffusion samplers, Sendera et al., 2024, arXiv:2402.05098, section 4.

    Arguments:
        excess: how much wider the noise is at the start, as a fraction of its standard deviation; at least 0.
        until: the fraction of training after which it is on-policy, in (0, 1].
    """

    def __init__(self, excess: float = 0.3, until: float = 0.5) -> None:
        self.excess = check_non_negative("excess", excess)
        if not 0 < until <= 1:
            raise InputError(f"until must be above 0 and at most 1, got {until!r}.")
        self.until = until

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        noise_scale = 1 + self.excess * max(0.0, 1 - progress / self.until)
        return rollout(dynamics, n, generator, noise_scale, keep_activations=True)
