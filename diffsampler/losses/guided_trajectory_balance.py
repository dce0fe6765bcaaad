"""Guided trajectory balance: credit along a guide, which a learned backward kernel follows."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_non_negative
from diffsampler.losses.trajectory_balance import TrajectoryBalance

if TYPE_CHECKING:
    from diffsampler.sampler import Sampler

__all__ = ["GuidedTrajectoryBalance"]


class GuidedTrajectoryBalance(TrajectoryBalance):
    """Trajectory balance with a guide in place of P_B, and the squared difference of log P_B and the log of the guide.

    The guide is the process's own backward kernel without control: what a learned backward control starts from, and
    with this loss stays close to while the forward control learns. `forward` is plain trajectory balance; `step` is
    what trains.

    References:
        Towards Understanding and Improving GFlowNet Training, Shen et al., 2023, arXiv:2305.07170 (guided trajectory
            balance).

    Arguments:
        weight: of the second term; at least 0.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = check_non_negative("weight", weight)

    def check(self, sampler: "Sampler", behaviour: Behaviour) -> None:
        super().check(sampler, behaviour)
        if not sampler.process.learns_backward:
            raise InputError(
                f"loss GuidedTrajectoryBalance guides a learned backward kernel, and that of "
                f"{type(sampler.process).__name__} has no network of its own. Use Bridge, or TrajectoryBalance."
            )

    def step(
        self, sampler: "Sampler", behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        path = behaviour.paths(sampler, n, generator, progress)
        trajectory = sampler.evaluate(path, with_flow=False)
        start, end = trajectory.balance_ends
        excess = trajectory.log_pb.sum(0) - sampler.log_uncontrolled_backward(path).sum(0)
        return (end - start - excess).square().mean() + self.weight * excess.square().mean()
