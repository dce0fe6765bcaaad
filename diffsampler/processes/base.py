"""What a process is: a prior, a forward kernel, a backward kernel and a reference, on times in [0, 1].

Any forward and backward kernels give exact importance weights, at any step size and for any control: what a process
gets wrong costs variance, never correctness.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffsampler.density import Density
from diffsampler.parts import make_part
from diffsampler.priors import Prior
from diffsampler.spaces import Space, as_space
from diffsampler.spaces.kernels import Kernel


class Process(nn.Module, ABC):
    """A discrete-time diffusion from a prior at time 0 to the target at time 1.

    Times `s < t` are float64 tensors that broadcast against the states: () in a rollout, (T, 1, 1) in the batched
    pass.

    Arguments:
        space: where states live; a number stands for R^D of that dimension.
        prior: the distribution of x_0, or what makes it from the space.

    Attributes:
        uses_score: whether the kernels need the target's score at the state they leave.
        shares_control: whether the backward kernel takes the forward control at the state it leaves.
        learns_backward: whether the backward kernel takes a control of its own network.
        scores_destination: whether it is at the state that a step leads back to, and not at the one that it leaves,
            that the backward kernel needs the score.
    """

    uses_score: bool = False
    shares_control: bool = False
    learns_backward: bool = False
    scores_destination: bool = False

    def __init__(self, space: Space | int, prior: Prior | Callable[[Space], Prior]) -> None:
        super().__init__()
        self.space = as_space(space)
        self.prior = make_part("prior", prior, Prior, self.space)

    @property
    def scale(self) -> Tensor:
        """The standard deviation of the uncontrolled process at time 1, with shape () or (D): the unit of states.

        Where a process does not say, that of its prior.
        """
        return self.prior.std

    def extend(self, density: Density) -> Density:
        """The density of this process's states, for processes that walk in more than positions."""
        return density

    def position(self, state: Tensor) -> Tensor:
        """The positions, with shape (*, D), in states of this process."""
        return state

    def lift(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """States of this process at positions x with shape (n, D), drawn from the extended target given x."""
        return x

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

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        """(signal, std) of x_t = signal x_1 + std noise, which P_B makes of an end point, at times t with shape (*, 1).

        On angles, of all turns. None where it is no such Gaussian, or P_B learns.
        """
        return None

    def context_of(self, state: Tensor) -> Tensor | None:
        """What tells apart the densities that states (*, D) belong to, with shape (*, C); None where there is one."""
        return None

    @abstractmethod
    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        """The log-density of the uncontrolled process at time 0 < t <= 1, with shape (*), for x with shape (*, D).

        Forward-looking flows start from it; where a process has no such density, any that resembles it will do.
        """

    def inverse_temperature(self, t: Tensor) -> Tensor:
        """How far from reference to target a forward-looking flow starts at times t: from 0 to 1, shaped like t."""
        return t
