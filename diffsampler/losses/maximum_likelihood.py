"""Maximum likelihood on trajectories rolled back from points of the target."""

from torch import Tensor

from diffsampler.losses.base import Loss
from diffsampler.trajectory import Trajectory

__all__ = ["MaximumLikelihood"]


class MaximumLikelihood(Loss):
    """Minus the mean of log prior + log P_F: forward KL, which covers every mode that the points show.

    The target is evaluated at the end points, and where the drift uses the score.

    References:
        Improved off-policy training of diffusion samplers, Sendera et al., 2024, arXiv:2402.05098, section 2.
    """

    uses_log_z = False
    backward = True

    def forward(self, trajectory: Trajectory) -> Tensor:
        return -(trajectory.log_prior + trajectory.log_pf.sum(0)).mean()
