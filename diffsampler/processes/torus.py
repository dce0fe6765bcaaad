"""Brownian motion on angles, driven by a learned control: a continuous GFlowNet on the torus."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.kernels import MAX_WRAPPED_STD, WrappedGaussianKernel
from diffsampler.processes.base import Process
from diffsampler.processes.scales import check_entries, to_scales

__all__ = ["Torus"]


class Torus(Process):
    """Angles in [-pi, pi)^D from a uniform start. With h = t - s and WN the wrapped normal:

        P_F(x_t | x_s) = WN(x_s + sigma u h, sigma^2 h)
        P_B(x_s | x_t) = WN(x_t, sigma^2 h)

    Without control the process stays uniform. Networks must be periodic: `PeriodicMLP` and `PeriodicFlow`, or wrappers
    around them; so must the target be, and log Z is that of one period.

    References:
        A Theory of Continuous Generative Flow Networks, Lahlou et al., 2023, arXiv:2301.12594, section 5.

    Arguments:
        sigma: the standard deviation of the noise over unit time, one for all coordinates or one each; positive. Around
            2 it forgets where it started.
    """

    periodic = True

    def __init__(self, sigma: float | Sequence[float] = 2.0) -> None:
        super().__init__()
        self.register_buffer("sigma", to_scales("sigma", sigma), persistent=False)
        if (self.sigma > MAX_WRAPPED_STD).any():
            raise InputError(f"sigma must be at most {MAX_WRAPPED_STD:g} on a torus, got {sigma!r}.")

    def adapt(self, dim: int) -> None:
        check_entries(self.sigma, dim)

    def sample_prior(
        self,
        n: int,
        dim: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        return (2 * torch.rand(n, dim, generator=generator, dtype=dtype, device=device) - 1) * math.pi

    def log_prior(self, x: Tensor) -> Tensor:
        return x.new_full(x.shape[:-1], -x.shape[-1] * math.log(2 * math.pi), dtype=torch.float64)

    def forward_kernel(
        self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None
    ) -> WrappedGaussianKernel:
        h = t - s
        return WrappedGaussianKernel(torch.addcmul(x, u, (self.sigma * h).to(x.dtype)), self.sigma * h.sqrt())

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> WrappedGaussianKernel:
        return WrappedGaussianKernel(y, self.sigma * (t - s).sqrt())

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return self.log_prior(x)
