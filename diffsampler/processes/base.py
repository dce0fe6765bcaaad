"""What a process is: a prior, a forward kernel, a backward kernel and a reference, on times in [0, 1].

Any forward and backward kernels give exact importance weights, at any step size and for any control: what a process
gets wrong costs variance, never correctness.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffsampler.kernels import Kernel
from diffsampler.priors import Prior
from diffsampler.target import Target

__all__ = ["Process"]


class Process(nn.Module, ABC):
    """A discrete-time diffusion from a prior at time 0 to the target at time 1.

    Times `s < t` are float64 tensors that broadcast against the states: () in a rollout, (T, 1, 1) in the batched
    pass.

    Arguments:
        prior: the distribution of x_0; without one it is `start`, by default a Dirac at 0.

    Attributes:
        uses_score: whether the kernels need the target's score at the state they leave.
        shares_control: whether the backward kernel takes the forward control at the state it leaves.
        learns_backward: whether the backward kernel takes a control of its own network.
        periodic: whether states are angles, so that networks must be periodic.
        scores_destination: whether it is at the state that a step leads back to, and not at the one that it leaves,
            that the backward kernel needs the score.
    """

    uses_score: bool = False
    shares_control: bool = False
    learns_backward: bool = False
    periodic: bool = False
    scores_destination: bool = False

    def __init__(self, prior: Prior | None = None) -> None:
        super().__init__()
        self.prior = prior

    @property
    def scale(self) -> Tensor:
        """The standard deviation of the uncontrolled process at time 1, with shape () or (D): the unit of states.

        Where a process does not say, that of its prior, or 1.
        """
        return torch.ones((), dtype=torch.float64) if self.prior is None else self.prior.scale

    def extend(self, target: Target) -> Target:
        """The target as a density of this process's states, for processes that walk in more than positions."""
        return target

    def position(self, state: Tensor) -> Tensor:
        """The positions, with shape (*, D), in states of this process."""
        return state

    def lift(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """States of this process at positions x with shape (n, D), drawn from the extended target given x."""
        return x

    def adapt(self, dim: int) -> None:
        """Fit states of this dimension, or raise InputError; called once, by the sampler."""
        if self.prior is not None:
            self.prior.adapt(dim)

    def sample_prior(
        self,
        n: int,
        dim: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """n initial states, with shape (n, D)."""
        if self.prior is not None:
            return self.prior.sample(n, generator, dtype, device)
        origin = torch.zeros(n, dim, dtype=dtype, device=device)
        start = self.start(origin)
        return origin if start is None else start.rsample(generator)

    def log_prior(self, x: Tensor) -> Tensor:
        """The log-density of initial states, with shape (*), for x with shape (*, D); 0 for a Dirac."""
        if self.prior is not None:
            return self.prior.log_prob(x)
        start = self.start(torch.zeros_like(x))
        return x.new_zeros(x.shape[:-1]) if start is None else start.log_prob(x)

    def start(self, origin: Tensor) -> Kernel | None:
        """The distribution of x_0 where no prior was given, around an origin with shape (*, D); None is a Dirac."""
        return None

    @abstractmethod
    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> Kernel:
        """P_F(x_t | x_s = x) under the control u, with shape (*, D); `score` is the target's at x."""

    @abstractmethod
    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> Kernel:
        """P_B(x_s | x_t = y), under the control v of processes that have one; `score` is the target's at y.

        With `scores_destination` it is that at `score_point(s, t, y)`.
        """

    def score_point(self, s: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Where the backward kernel from y needs the score."""
        return y

    def gaussian_control(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(p, q), each with shape (*, 1) or (*, D), for times t with shape (*, 1).

        The control u = p (v - 1) / (1 + q (v - 1)) x / scale takes the process to N(0, v scale^2), in continuous time
        and if nothing of the target is left in the prior. Here, and where no such control is known, that of Brownian
        motion from the origin.
        """
        return torch.ones_like(t), t

    @abstractmethod
    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        """The log-density of the uncontrolled process at time 0 < t <= 1, with shape (*), for x with shape (*, D).

        Forward-looking flows start from it; where a process has no such density, any that resembles it will do.
        """

    def inverse_temperature(self, t: Tensor) -> Tensor:
        """How far from reference to target a forward-looking flow starts at times t: from 0 to 1, shaped like t."""
        return t
