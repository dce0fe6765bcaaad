"""What a process is: a prior, a forward kernel, a backward kernel and a reference, on times in [0, 1].

Any forward and backward kernels give exact importance weights, at any step size and for any control: what a process
    gets wrong costs variance, never correctness.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffsampler.kernels import Kernel

__all__ = ["Process"]


class Process(nn.Module, ABC):
    """A discrete-time diffusion from a prior at time 0 to the target at time 1.

    Times `s < t` are float64 tensors that broadcast against the states: () in a rollout, (T, 1, 1) in the batched
    pass. The prior is a Dirac at 0 unless a subclass says otherwise.
    """

    @property
    def scale(self) -> Tensor:
        """The standard deviation of the uncontrolled process at time 1, with shape () or (D): the unit of states."""
        return torch.ones((), dtype=torch.float64)

    def check_dim(self, dim: int) -> None:
        """Raise InputError if the process does not fit states of dimension D; it fits any, unless overridden."""

    def sample_prior(
        self,
        n: int,
        dim: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """n initial states, with shape (n, D)."""
        return torch.zeros(n, dim, dtype=dtype, device=device)

    def log_prior(self, x: Tensor) -> Tensor:
        """The log-density of initial states, with shape (*), for x with shape (*, D); 0 for a Dirac."""
        return x.new_zeros(x.shape[:-1])

    @abstractmethod
    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor) -> Kernel:
        """P_F(x_t | x_s = x) under the control u, with shape (*, D)."""

    @abstractmethod
    def backward_kernel(self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None) -> Kernel:
        """P_B(x_s | x_t = y), under the backward control v of processes that have one."""

    @abstractmethod
    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        """The log-density of the uncontrolled process at time 0 < t <= 1, with shape (*), for x with shape (*, D)."""
