"""Two diffusions that meet: forward and backward control are both learned."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffsampler.kernels import GaussianKernel
from diffsampler.priors import GaussianPrior, Prior, is_adapted
from diffsampler.processes.base import Process
from diffsampler.processes.scales import check_entries, to_scales

__all__ = ["Bridge"]


class Bridge(Process):
    """The general bridge between any prior and the target. With h = t - s:

        P_F(x_t | x_s) = N(x_s + sigma u h, sigma^2 h)
        P_B(x_s | x_t) = N(x_t - sigma v h, sigma^2 h)

    with u and v two networks. With `LangevinDrift` for both, the score is in both.

    References:
        Improved sampling via learned diffusions, Richter & Berner, 2024, arXiv:2307.01198 (general bridge).
        Underdamped Diffusion Bridges with Applications to Sampling, Blessing et al., 2025, arXiv:2503.01006 (DBS).

    Arguments:
        sigma: the standard deviation of the noise over unit time, one for all coordinates or one each; positive.
        prior: by default a learnable `GaussianPrior()`.
        learnable: whether sigma is learned, each coordinate by itself.
    """

    learns_backward = True

    def __init__(
        self, sigma: float | Sequence[float] = 1.0, prior: Prior | None = None, learnable: bool = True
    ) -> None:
        super().__init__(GaussianPrior() if prior is None else prior)
        self.register_buffer("sigma", to_scales("sigma", sigma), persistent=False)
        self.learnable = learnable

    def adapt(self, dim: int) -> None:
        super().adapt(dim)
        check_entries(self.sigma, dim)
        if not is_adapted(self, (dim,)):
            self.log_factor = nn.Parameter(torch.zeros(dim), self.learnable)

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> GaussianKernel:
        return self._step(t - s, x, u)

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> GaussianKernel:
        return self._step(t - s, y, -v)

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return self.prior.log_prob(x)

    def _step(self, h: Tensor, x: Tensor, control: Tensor) -> GaussianKernel:
        sigma = self.sigma * self.log_factor.exp()
        return GaussianKernel(x + control * (sigma * h).to(x.dtype), sigma * h.sqrt())
