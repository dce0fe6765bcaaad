"""Brownian motion from the origin, driven by a learned control: PIS and DGFS."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.priors import DiracPrior
from diffsampler.processes.base import Process
from diffsampler.spaces import Space, as_reals
from diffsampler.spaces.kernels import GaussianKernel
from diffsampler.spaces.scales import to_scales


class PinnedBrownian(Process):
    """Brownian motion started in 0, whose time reversal is the Brownian bridge to 0.

    With h = t - s:

        P_F(x_t | x_s) = N(x_s + sigma u h, sigma^2 h)
        P_B(x_s | x_t) = N((s / t) x_t, sigma^2 h s / t), a Dirac in 0 at s = 0

    For a target N(0, sigma^2) the control u = 0 is optimal: every importance weight equals Z.
    Choose sigma so that the target lies within about two sigma of the origin. A run of the DGFS code over [0, T] with
    unit noise is this process with sigma^2 = T.

    References:
        Path Integral Sampler, Zhang & Chen, 2022, arXiv:2111.15141.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679, section 2.

    Arguments:
        space: R^D, or D.
        sigma: the standard deviation at time 1, one for all coordinates or one each; positive.
    """

    def __init__(self, space: Space | int, sigma: float | Sequence[float] = 1.0) -> None:
        super().__init__(as_reals(type(self).__name__, space), DiracPrior)
        self.register_buffer("sigma", to_scales("sigma", sigma, self.space.dim), persistent=False)

    @property
    def scale(self) -> Tensor:
        return self.sigma

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> GaussianKernel:
        h = t - s
        return GaussianKernel(torch.addcmul(x, u, (self.sigma * h).to(x.dtype)), self.sigma * h.sqrt())

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> GaussianKernel:
        ratio = s / t
        return GaussianKernel(y * ratio.to(y.dtype), self.sigma * ((t - s) * ratio).sqrt())

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, self.sigma * (t * (1 - t)).sqrt()

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return GaussianKernel(torch.zeros_like(x), self.sigma * t.sqrt()).log_prob(x)
