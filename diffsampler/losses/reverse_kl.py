"""Reverse Kullback-Leibler divergence, KL(P_F || P_B R / Z), by its two gradients."""

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError
from diffsampler.losses.base import Objective, TrajectoryLoss
from diffsampler.paths import Dynamics, Trajectory, differentiable_rollout, evaluate


class ScoreFunctionReverseKL(TrajectoryLoss):
    """Minus the ELBO, differentiated through the densities of given states (log-derivative trick, "rKL-LD").

    With A the batch's centred minus-log-weights, the gradient is that of A log P_F - log P_B: no derivative of the
    target, of its score, or through the states. The value of the loss is minus the ELBO.

    References:
        Stochastic optimal control meets variational inference: reverse KL with the log-derivative trick in diffusion
            bridges, Sanokowski et al., 2025, arXiv:2506.10982 (rKL-LD).
    """

    uses_log_z = False
    on_policy = True
    min_batch_size = 2

    def forward(self, trajectory: Trajectory) -> Tensor:
        start, end = trajectory.balance_ends
        minus_log_weight = (start - end).detach()
        n = len(minus_log_weight)
        # Each trajectory against the mean of the others: the baseline leaves the gradient unbiased.
        advantage = (minus_log_weight - minus_log_weight.mean()) * (n / max(n - 1, 1))
        log_pf = trajectory.log_prior + trajectory.log_pf.sum(0)
        surrogate = advantage * log_pf - trajectory.log_pb.sum(0)
        value = minus_log_weight - trajectory.log_z.detach()
        return (surrogate - surrogate.detach() + value).mean()


class PathwiseReverseKL(Objective):
    """Minus the ELBO, differentiated through the states (reparametrisation), as PIS and DDS train.

    The rollout itself carries gradients; the target's score inside a control is held fixed, inside a process's kernels
    it is differentiated (second derivatives of the target). The log-density at the end is differentiated exactly. A
    batch that meets a density of zero takes the score-function gradient: there is none through the states.

    References:
        Path Integral Sampler, Zhang & Chen, 2022, arXiv:2111.15141.
        Sticking the Landing, Roeder et al., 2017, arXiv:1703.09194.

    Arguments:
        sticking_the_landing: leave out the part of the gradient whose mean is zero; where the sampler is exact, the
            gradient is then zero for every path. Costs a second pass through the networks.
    """

    uses_log_z = False
    on_policy = True

    def __init__(self, sticking_the_landing: bool = False) -> None:
        super().__init__()
        self.sticking_the_landing = sticking_the_landing

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        super().check(dynamics, behaviour)
        if not dynamics.target.differentiable:
            raise InputError(
                f"loss PathwiseReverseKL follows the target's score, but {dynamics.target.name} has "
                "differentiable=False. Use ScoreFunctionReverseKL, LogVariance or TrajectoryBalance."
            )
        prior = dynamics.policy.process.prior
        if not prior.reparametrised and any(p.requires_grad for p in prior.parameters()):
            raise InputError(
                f"loss PathwiseReverseKL cannot learn {type(prior).__name__}, whose samples carry no gradient. Use "
                "ScoreFunctionReverseKL, GaussianPrior, or learnable=False."
            )

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        through_states = differentiable_rollout(dynamics, n, generator)
        if not through_states.log_weight.isfinite().all():
            # The edge of the support has no gradient through the states: the densities must say where it is.
            return ScoreFunctionReverseKL()(evaluate(dynamics, through_states.path, with_flow=False))
        loss = -through_states.log_weight.mean()
        if self.sticking_the_landing:
            trajectory = evaluate(dynamics, through_states.path, with_flow=False)
            log_pf = trajectory.log_prior + trajectory.log_pf.sum(0)
            loss = loss - (log_pf - log_pf.detach()).mean()
        return loss
