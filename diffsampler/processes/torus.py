"""Brownian motion on angles, driven by a learned control: a continuous GFlowNet on the torus."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.priors import UniformPrior
from diffsampler.processes.base import Process
from diffsampler.spaces import Circle, Space, as_space
from diffsampler.spaces.kernels import MAX_WRAPPED_STD, WrappedGaussianKernel
from diffsampler.spaces.scales import to_scales


class Torus(Process):
    """Angles in [-pi, pi)^D from a uniform start. With h = t - s and WN the wrapped normal:

        P_F(x_t | x_s) = WN(x_s + sigma u h, sigma^2 h)
        P_B(x_s | x_t) = WN(x_t, sigma^2 h)

    Without control the process stays uniform. The target must be periodic, and log Z is that of one period.

    References:
        A Theory of Continuous Generative Flow Networks, Lahlou et al., 2023, arXiv:2301.12594, section 5.

    Arguments:
        space: angles, or their number D.
        sigma: the standard deviation of the noise over unit time, one for all coordinates or one each; positive. Around
            2 it forgets where it started.
    """

    def __init__(self, space: Space | int, sigma: float | Sequence[float] = 2.0) -> None:
        space = as_space(space)
        super().__init__(space if space.is_periodic else Circle(space.dim), UniformPrior)
        self.register_buffer("sigma", to_scales("sigma", sigma, self.space.dim), persistent=False)
        if (self.sigma > MAX_WRAPPED_STD).any():
            raise InputError(f"sigma must be at most {MAX_WRAPPED_STD:g} on a torus, got {sigma!r}.")

    def forward_kernel(
        self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None
    ) -> WrappedGaussianKernel:
        h = t - s
        return self.space.kernel(torch.addcmul(x, u, (self.sigma * h).to(x.dtype)), self.sigma * h.sqrt())

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> WrappedGaussianKernel:
        return self.space.kernel(y, self.sigma * (t - s).sqrt())

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma * (1 - t).sqrt()

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return self.prior.log_prob(x)
