"""The two records of this room: where trajectories went, and how probable that was.

Everything computed from a trajectory is a function of one array,

    u_k = log F_k(x_k) - sum_{j<k} [ log P_F(x_{j+1} | x_j) - log P_B(x_j | x_{j+1}) ],    k = 0..T

with log F_0 = log Z + log prior(x_0) and log F_T = log R(x_T). Balance holds exactly where u does not depend on k,
and the log importance weight is u_T - u_0 + log Z.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffsampler.density import ZERO_DENSITY_MARGIN
from diffsampler.errors import InputError
from diffsampler.networks.tape import Tapes


@dataclass(frozen=True)
class Path:
    """States only, without gradients: all that a behaviour hands over.

    Attributes:
        times: the grid, float64, with shape (T + 1).
        x: states from prior to target, with shape (T + 1, B, D).
        log_prob: log R where it is known already, float64; at every state, with shape (T + 1, B), or at the end, with
            shape (1, B).
        score: that networks take at every state, the gradient of log R or of a guide, with shape (T + 1, B, D), if it
            is known already.
        tapes: activations of the rollout that the states are from, if they are kept.
    """

    times: Tensor
    x: Tensor
    log_prob: Tensor | None = None
    score: Tensor | None = None
    tapes: Tapes | None = None

    def __post_init__(self) -> None:
        if self.x.dim() != 3 or self.times.shape != self.x.shape[:1]:
            raise ValueError(
                f"A path needs states with shape (T + 1, B, D) and T + 1 times, got {tuple(self.x.shape)} and "
                f"{tuple(self.times.shape)}."
            )
        shape, end = self.x.shape, (1, self.x.shape[1])
        for name, value, shapes in (("log_prob", self.log_prob, {shape[:2], end}), ("score", self.score, {shape})):
            if value is not None and value.shape not in shapes:
                expected = " or ".join(str(tuple(shape)) for shape in shapes)
                raise ValueError(f"The path's {name} must have shape {expected}, got {tuple(value.shape)}.")

    @property
    def num_steps(self) -> int:
        """T."""
        return self.x.shape[0] - 1

    def detach(self) -> "Path":
        """The same without gradients."""
        parts = (None if part is None else part.detach() for part in (self.x, self.log_prob, self.score))
        return Path(self.times, *parts)


@dataclass(frozen=True)
class Trajectory:
    """The densities of a path under the current model, in float64.

    Attributes:
        log_pf: log P_F(x_{k+1} | x_k), with shape (T, B).
        log_pb: log P_B(x_k | x_{k+1}), with shape (T, B); or what the path measure says of a step.
        log_prior: the log prior density of x_0, with shape (B); over what the path measure says of it.
        log_prob: log R(x_T), with shape (B); -inf where the density is zero.
        log_z: the model's log Z, with shape (), or one for each trajectory of a family, (B).
        log_flow: log F_k(x_k) at interior times, with shape (T - 1, B), or None without a flow.
        path: the states, for losses that have networks of their own.
        context: which density of a family a trajectory is of, with shape (B, C); None where there is one density.
    """

    log_pf: Tensor
    log_pb: Tensor
    log_prior: Tensor
    log_prob: Tensor
    log_z: Tensor
    log_flow: Tensor | None = None
    path: Path | None = None
    context: Tensor | None = None

    @property
    def num_steps(self) -> int:
        """T."""
        return self.log_pf.shape[0]

    @cached_property
    def group(self) -> Tensor | None:
        """Whole numbers that tell the densities of a family apart, with shape (B); None where there is one.

        Few losses compare trajectories of one context: contexts are sorted for those only.
        """
        return None if self.context is None else groups_of(self.context)

    @cached_property
    def log_ratio(self) -> Tensor:
        """S_k, the sum of log P_F - log P_B over the first k steps, with shape (T + 1, B)."""
        steps = self.log_pf - self.log_pb
        return torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])

    @property
    def log_weight(self) -> Tensor:
        """The log importance weight, with shape (B): E[exp(log_weight)] = Z for any model. Needs no flow."""
        return self.log_prob - self.log_prior - self.log_ratio[-1]

    @cached_property
    def balance_ends(self) -> tuple[Tensor, Tensor]:
        """(u_0, u_T), each with shape (B), finite wherever the model is.

        Where log R(x_T) is not finite it stands at the value that puts the weight ten nats below log Z: losses stay
        finite, and their gradient still pulls trajectories away from there.
        """
        start = self.log_z + self.log_prior
        floor = (start + self.log_ratio[-1] - ZERO_DENSITY_MARGIN).detach()
        log_prob = torch.where(self.log_prob.isfinite(), self.log_prob, floor)
        return start, log_prob - self.log_ratio[-1]

    @cached_property
    def u(self) -> Tensor:
        """The balance array, with shape (T + 1, B); InputError without a flow."""
        if self.log_flow is None:
            raise InputError(
                "u needs the flow at interior times, but this trajectory was evaluated without one: a loss that reads "
                "it must say uses_flow = True."
            )
        start, end = self.balance_ends
        return torch.cat([start[None], self.log_flow - self.log_ratio[1:-1], end[None]])


def groups_of(context: Tensor) -> Tensor:
    """Whole numbers that are the same where contexts, with shape (B, C), are, with shape (B)."""
    return context.unique(dim=0, return_inverse=True)[1]
