"""The probability flow of a sampler: an ODE with the same marginals, and with it the density of every point."""

from typing import NamedTuple

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.paths.dynamics import Dynamics
from diffsampler.spaces.kernels import Kernel

# Of the kernels whose means give the velocity; and when the flow starts, where the process starts in one point.
STEP, START = 1e-8, 1e-6


class FlowDensity(NamedTuple):
    """Points and their log-densities under a flow.

    Attributes:
        x: with shape (n, D).
        log_prob: float64, with shape (n).
        standard_error: of the estimate of the trace that log_prob contains, with shape (n); 0 where it is exact.
    """

    x: Tensor
    log_prob: Tensor
    standard_error: Tensor


class ProbabilityFlow:
    """dx/dt = (b_F(t, x) + b_B(t, x)) / 2, the drifts of the forward and, in forward time, of the backward kernel.

    Where both kernels are reversals of each other, as they are after training, it carries the prior along the marginals
    of the sampler. Whatever they are it is a normalised density, so that importance weights from it are unbiased.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2021, arXiv:2011.13456,
            section 4.3.
        FFJORD, Grathwohl et al., 2019, arXiv:1810.01367 (Hutchinson's estimate of the trace).

    Arguments:
        dynamics: whose kernels; densities are in its own coordinates.
        num_probes: where D is at most this, the trace of the Jacobian is exact; elsewhere it is estimated with so many
            random probes, at least 2.
        tolerance: of the solver (dopri5), relative and absolute.

    Raises:
        InputError: for processes that walk in more than positions, or start in one point in some coordinates alone.
    """

    def __init__(self, dynamics: Dynamics, num_probes: int = 16, tolerance: float = 1e-6) -> None:
        policy = dynamics.policy
        zeros = torch.zeros(1, policy.dim)
        context = policy.process.context_of(zeros)
        still = 0 if context is None else context.shape[-1]
        if policy.dim not in (num := policy.process.position(zeros).shape[-1], num + still):
            raise InputError(
                f"process {type(policy.process).__name__} walks in momenta too, whose flow says nothing of positions "
                "alone. Use another process, or estimates by importance weights."
            )
        if policy.process.prior.is_partly_point:
            raise InputError(
                f"process {type(policy.process).__name__} starts in one point in some coordinates and not in others, "
                "where its flow has no density. Use another process of the former, or estimates by importance weights."
            )
        if policy.evaluations_per_state:
            raise InputError(
                "The probability flow needs derivatives of the control, and those of FollmerDrift's mean are held "
                "fixed: use estimates by importance weights."
            )
        self.policy = policy
        self.dynamics = dynamics
        self.num_probes = check_count("num_probes", num_probes, minimum=2)
        self.tolerance = check_positive("tolerance", tolerance)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> FlowDensity:
        """n points that the flow carries from the prior, and their densities.

        Arguments:
            n: the number of points.
            generator: the source of all noise.
        """
        policy = self.policy
        x = policy.process.prior.sample(n, generator, torch.float64, policy.device)
        first = self._first_step(x)
        if first is not None:
            x = first.rsample(generator)
        end, change = self._carry(x, self._start_time, 1.0, generator)
        return self._density(policy.process.space.wrap(end), self._log_start(x, first), -change)

    @torch.no_grad()
    def log_prob(self, x: Tensor, generator: torch.Generator | None = None) -> FlowDensity:
        """The densities of points with shape (n, D).

        Arguments:
            x: in the coordinates that the process walks in.
            generator: the source of the probes.
        """
        if not x.isfinite().all():
            raise InputError(f"x must be finite, got {int((~x.isfinite()).any(-1).sum())} points that are not.")
        start, change = self._carry(x.double(), 1.0, self._start_time, generator)
        return self._density(x, self._log_start(start, self._first_step(torch.zeros_like(start))), change)

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """dx/dt, float64, at a time t with shape () and states x with shape (n, D)."""
        policy, now = self.policy, t.double().clamp(STEP, 1 - STEP)
        score = None
        if policy.uses_score:
            score = self.dynamics.scored.differentiable_log_prob_and_score(x.to(policy.dtype))[1]
        control, backward_control = policy.controls(now, x.to(policy.dtype), score)
        self.dynamics.count_network(len(x) * (1 if policy.backward_control is None else 2))
        score = None if score is None else score.double()
        forward = policy.forward_kernel(now, now + STEP, x, control.double(), score)
        backward_control = None if backward_control is None else backward_control.double()
        backward = policy.backward_kernel(now - STEP, now, x, backward_control, score)
        return (forward.mean - backward.mean) / (2 * STEP)

    @property
    def _start_time(self) -> float:
        return START if self.policy.process.prior.is_point else 0.0

    def _first_step(self, origin: Tensor) -> Kernel | None:
        """The sampler's own step from the point where it starts, if it does."""
        if not self.policy.process.prior.is_point:
            return None
        policy, start = self.policy, torch.zeros((), dtype=torch.float64, device=origin.device)
        score = self.dynamics.scored.log_prob_and_score(origin.to(policy.dtype))[1] if policy.uses_score else None
        control, _ = policy.controls(start, origin.to(policy.dtype), score)
        self.dynamics.count_network(len(origin) * (1 if policy.backward_control is None else 2))
        return policy.forward_kernel(start, start + START, origin, control.to(origin.dtype), score)

    def _log_start(self, x: Tensor, first: Kernel | None) -> Tensor:
        return self.policy.process.prior.log_prob(x).double() if first is None else first.log_prob(x)

    def _carry(self, x: Tensor, start: float, end: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Where the flow takes x, and the integral of its divergence on the way, one for each probe: (n, P)."""
        from torchdiffeq import odeint

        n, dim = x.shape
        if n == 0:
            return x, x.new_zeros(0, 1)
        exact = dim <= self.num_probes
        probes = torch.eye(dim, dtype=x.dtype, device=x.device).unsqueeze(1)
        if not exact:
            shape = (self.num_probes, n, dim)
            coin = torch.randint(2, shape, generator=generator, device=x.device)
            probes = (2 * coin - 1).to(x.dtype)

        def rates(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            with torch.inference_mode(False), torch.enable_grad():
                here = state[0].clone().requires_grad_()
                velocity = self.velocity(t, here)
                # e^T J e for each probe e.
                products = [
                    (torch.autograd.grad(velocity, here, probe.expand_as(here), retain_graph=True)[0] * probe).sum(-1)
                    for probe in probes
                ]
            # At a kink of a score there is no derivative: a set of measure zero, where it counts as 0.
            traces = torch.stack(products, -1).nan_to_num(0.0, 0.0, 0.0)
            return velocity.detach(), traces.sum(-1, keepdim=True) if exact else traces

        change = x.new_zeros(n, 1 if exact else self.num_probes)
        times = torch.tensor([start, end], dtype=torch.float64, device=x.device)
        states, changes = odeint(rates, (x, change), times, rtol=self.tolerance, atol=self.tolerance, method="dopri5")
        return states[-1], changes[-1]

    def _density(self, x: Tensor, log_start: Tensor, change: Tensor) -> FlowDensity:
        count = change.shape[1]
        error = change.std(-1) / count**0.5 if count > 1 else torch.zeros_like(log_start)
        return FlowDensity(x, log_start + change.mean(-1), error)
