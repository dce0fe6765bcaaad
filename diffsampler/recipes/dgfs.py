"""Diffusion generative flow samplers: the recipe where a user has chosen a part."""

from diffsampler.behaviours import OnPolicy
from diffsampler.losses import SubTrajectoryBalance
from diffsampler.networks import ForwardLookingFlow, LangevinControl
from diffsampler.processes import PinnedBrownian
from diffsampler.recipes.base import Parts, Recipe, Training
from diffsampler.target import Target


class Dgfs(Recipe):
    """A pinned Brownian motion whose control takes the score, trained by sub-trajectory balance on its own rollouts.

    References:
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679.
    """

    def parts(self, target: Target) -> Parts:
        return Parts(PinnedBrownian, LangevinControl, ForwardLookingFlow, 100, None)

    def training(self) -> Training:
        return Training(SubTrajectoryBalance(), OnPolicy(), lr=1e-3, tolerance=0.0)
