"""Detailed balance: every pair of neighbours."""

from torch import Tensor

from diffsampler.losses.base import TrajectoryLoss
from diffsampler.paths import Trajectory


class DetailedBalance(TrajectoryLoss):
    """The mean of (u_{k+1} - u_k)^2 over steps and trajectories.

    References:
        GFlowNet Foundations, Bengio et al., 2023, arXiv:2111.09266, section 3.
        A Theory of Continuous Generative Flow Networks, Lahlou et al., 2023, arXiv:2301.12594, definition 7.
    """

    uses_flow = True

    def forward(self, trajectory: Trajectory) -> Tensor:
        return trajectory.u.diff(dim=0).square().mean()
