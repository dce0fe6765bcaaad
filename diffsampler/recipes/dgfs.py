"""Diffusion generative flow samplers: the recipe where a user has chosen a part."""

from diffsampler.behaviours import OnPolicy
from diffsampler.losses import SubTrajectoryBalance
from diffsampler.networks import Control, ForwardLookingFlow, FourierMLP, LangevinControl
from diffsampler.processes import Process, as_process
from diffsampler.recipes.base import Parts, Recipe, Training
from diffsampler.target import Target


class Dgfs(Recipe):
    """A pinned Brownian motion whose control takes the score, trained by sub-trajectory balance on its own rollouts.

    Where there are angles, a `Torus`, and where there are reals beside them a `ProductProcess`.

    References:
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679.
    """

    def parts(self, target: Target) -> Parts:
        return Parts(as_process, _control, ForwardLookingFlow, 100, None)

    def training(self) -> Training:
        return Training(SubTrajectoryBalance(), OnPolicy(), lr=1e-3, tolerance=0.0)


def _control(process: Process) -> Control:
    return LangevinControl(process) if process.space.is_euclidean else LangevinControl(process, FourierMLP)
