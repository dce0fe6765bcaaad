"""LED-GFN: the target's log-density learned as a sum over steps, and detailed balance with it."""

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_non_negative
from diffsampler.losses.base import Objective
from diffsampler.networks.fourier import TimePerceptron
from diffsampler.paths import Dynamics, Trajectory, evaluate


class LearnedDecomposition(Objective):
    """Detailed balance of u_k + sum_{j<k} phi_j, and a regression of log R(x_T) on the sum of all phi_j.

    phi_j = network(t_j, x_j, x_{j+1}) is the share of a step in log R: a forward-looking flow for targets whose values
    on the way say little or cost too much. The regression drops steps at random, so that shares are spread evenly;
    balance takes the shares as given.

    References:
        Learning Energy Decompositions for Partial Inference of GFlowNets, Jang et al., 2024, arXiv:2310.03301.

    Arguments:
        dropout: the probability of leaving a step out of the regression, in [0, 1).
        weight: of the regression; at least 0.
        width: the size of each hidden layer.
    """

    uses_flow = True

    def __init__(self, dropout: float = 0.2, weight: float = 1.0, width: int = 64) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1, got {dropout!r}.")
        self.dropout = dropout
        self.weight = check_non_negative("weight", weight)
        self.width = width

    def adapt(self, dynamics: Dynamics) -> None:
        self.network = TimePerceptron(2 * dynamics.policy.dim, 1, self.width).to(
            dynamics.policy.device, dynamics.policy.dtype
        )

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        flow = dynamics.policy.flow
        if flow is None or flow.uses_interpolation:
            raise InputError(
                "loss LearnedDecomposition needs a flow that takes nothing from the target on the way, but the sampler "
                f"has {None if flow is None else type(flow).__name__}. Pass flow=FourierFlow, or use "
                "DetailedBalance."
            )
        super().check(dynamics, behaviour)

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        trajectory = evaluate(dynamics, behaviour.paths(dynamics, n, generator, progress))
        uniform = torch.rand(trajectory.log_pf.shape, generator=generator, device=trajectory.log_pf.device)
        return self(trajectory, (uniform >= self.dropout).double())

    def forward(self, trajectory: Trajectory, keep: Tensor) -> Tensor:
        """The loss of a trajectory whose regression keeps some of the steps, those with 1 in (T, B)."""
        path = trajectory.path
        embedding = self.network.time(path.times[:-1].to(path.x.dtype)).unsqueeze(1)
        share = self.network(embedding, torch.cat([path.x[:-1], path.x[1:]], -1)).squeeze(-1).double()
        done = torch.cat([torch.zeros_like(share[:1]), share.cumsum(0)]).detach()
        # At both ends the flow is known; the shares lift it in between.
        done[-1] = 0
        balance = (trajectory.u + done).diff(dim=0).square().mean()
        finite = trajectory.log_prob.isfinite()
        per_step = (share * keep).sum(0) / keep.sum(0).clamp(min=1)
        wanted = torch.where(finite, trajectory.log_prob, 0.0) / trajectory.num_steps
        regression = ((per_step - wanted).square() * finite).mean()
        return balance + self.weight * regression
