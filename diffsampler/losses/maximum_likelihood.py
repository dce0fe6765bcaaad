"""Maximum likelihood on trajectories rolled back from points of the target."""

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import check_count
from diffsampler.losses.base import TrajectoryLoss
from diffsampler.paths import Dynamics, Trajectory, log_pf_of


class MaximumLikelihood(TrajectoryLoss):
    """Minus the mean of log prior + log P_F: forward KL, which covers every mode that the points show.

    The target is evaluated at the end points, and where the control uses the score; with `num_transitions`, only for
    the score.

    References:
        Improved off-policy training of diffusion samplers, Sendera et al., 2024, arXiv:2402.05098, section 2.

    Arguments:
        num_transitions: how many transitions of a batch of trajectories are taken, at random; all of them if None.
            The mean is the same, neighbouring transitions of one trajectory tell little new.
    """

    uses_log_z = False
    backward = True

    def __init__(self, num_transitions: int | None = None) -> None:
        super().__init__()
        self.num_transitions = None if num_transitions is None else check_count("num_transitions", num_transitions)

    def forward(self, trajectory: Trajectory) -> Tensor:
        return -(trajectory.log_prior + trajectory.log_pf.sum(0)).mean()

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        if self.num_transitions is None:
            return super().step(dynamics, behaviour, n, generator, progress)
        path = behaviour.paths(dynamics, n, generator, progress)
        num_steps, draws = len(path.times) - 1, {"generator": generator, "device": path.x.device}
        step = torch.randint(num_steps, (self.num_transitions,), **draws)
        row = torch.randint(path.x.shape[1], (self.num_transitions,), **draws)
        log_pf = log_pf_of(dynamics, path, step, row)
        return -(num_steps * log_pf.mean() + dynamics.policy.process.prior.log_prob(path.x[0]).double().mean())
