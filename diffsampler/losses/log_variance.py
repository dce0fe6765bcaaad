"""Log-variance: trajectory balance with the batch's own log Z."""

from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.families.contexts import mean_of_group
from diffsampler.losses.base import TrajectoryLoss
from diffsampler.paths import Trajectory


class LogVariance(TrajectoryLoss):
    """The variance of the log-weights over the batch (VarGrad): no flow and no log Z to learn.

    Of a family it is that among trajectories of one context, averaged over all: draws that are alone with theirs say
    nothing.

    References:
        VarGrad: A Low-Variance Gradient Estimator for Variational Inference, Richter et al., 2020, arXiv:2010.10436.
        Improved sampling via learned diffusions, Richter & Berner, 2024, arXiv:2307.01198.
    """

    uses_log_z = False
    min_batch_size = 2

    def forward(self, trajectory: Trajectory) -> Tensor:
        start, end = trajectory.balance_ends
        difference = end - start
        if trajectory.group is None:
            return difference.var(correction=0)
        if int(trajectory.group.max()) + 1 == len(trajectory.group):
            raise InputError(
                "LogVariance compares trajectories of the same context, and here each is of another: take OnPolicy or "
                "SearchedMembers, or MaximumLikelihood for draws that are alone with their context."
            )
        return (difference - mean_of_group(difference, trajectory.group)).square().mean()
