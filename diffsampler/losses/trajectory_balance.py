"""Trajectory balance: the pair (0, T)."""

from torch import Tensor

from diffsampler.losses.base import TrajectoryLoss
from diffsampler.paths import Trajectory


class TrajectoryBalance(TrajectoryLoss):
    """The mean of (u_T - u_0)^2 = (log_weight - log Z)^2.

    References:
        Trajectory balance: Improved credit assignment in GFlowNets, Malkin et al., 2022, arXiv:2201.13259, eq. 14.
    """

    def forward(self, trajectory: Trajectory) -> Tensor:
        start, end = trajectory.balance_ends
        return (end - start).square().mean()
