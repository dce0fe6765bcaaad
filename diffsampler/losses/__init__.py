"""Losses: scalars of a trajectory's densities that vanish, or are least, where balance holds. One file each."""

from diffsampler.losses.base import Loss
from diffsampler.losses.detailed_balance import DetailedBalance
from diffsampler.losses.log_variance import LogVariance
from diffsampler.losses.sub_trajectory_balance import SubTrajectoryBalance, laplacian
from diffsampler.losses.trajectory_balance import TrajectoryBalance

__all__ = ["DetailedBalance", "LogVariance", "Loss", "SubTrajectoryBalance", "TrajectoryBalance", "laplacian"]
