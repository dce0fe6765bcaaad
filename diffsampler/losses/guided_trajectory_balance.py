"""Guided trajectory balance: credit along a guide, which a learned backward kernel follows."""

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_non_negative
from diffsampler.losses.base import Objective
from diffsampler.paths import Dynamics, evaluate, log_uncontrolled_backward


class GuidedTrajectoryBalance(Objective):
    """Trajectory balance with a guide in place of P_B, and the squared difference of log P_B and the log of the guide.

    The guide is the process's own backward kernel without control: what a learned backward control starts from, and
    with this loss stays close to while the forward control learns.

    References:
        Towards Understanding and Improving GFlowNet Training, Shen et al., 2023, arXiv:2305.07170 (guided trajectory
            balance).

    Arguments:
        weight: of the second term; at least 0.
    """

    of_density = True

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = check_non_negative("weight", weight)

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        super().check(dynamics, behaviour)
        if not dynamics.policy.process.learns_backward:
            raise InputError(
                f"loss GuidedTrajectoryBalance guides a learned backward kernel, and that of "
                f"{type(dynamics.policy.process).__name__} has no network of its own. Use Bridge, or TrajectoryBalance."
            )

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        path = behaviour.paths(dynamics, n, generator, progress)
        trajectory = evaluate(dynamics, path, with_flow=False)
        start, end = trajectory.balance_ends
        excess = trajectory.log_pb.sum(0) - log_uncontrolled_backward(dynamics, path).sum(0)
        return (end - start - excess).square().mean() + self.weight * excess.square().mean()
