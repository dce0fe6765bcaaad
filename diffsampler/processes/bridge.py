"""Two diffusions that meet: forward and backward control are both learned."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffsampler.priors import GaussianPrior, Prior
from diffsampler.processes.base import Process
from diffsampler.spaces import Space, as_reals
from diffsampler.spaces.kernels import GaussianKernel
from diffsampler.spaces.scales import to_scales


class Bridge(Process):
    """The general bridge between any prior and the target. With h = t - s:

        P_F(x_t | x_s) = N(x_s + sigma u h, sigma^2 h)
        P_B(x_s | x_t) = N(x_t - sigma v h, sigma^2 h)

    with u and v two networks. With `LangevinControl` for both, the score is in both.

    References:
        Improved sampling via learned diffusions, Richter & Berner, 2024, arXiv:2307.01198 (general bridge).
        Underdamped Diffusion Bridges with Applications to Sampling, Blessing et al., 2025, arXiv:2503.01006 (DBS).

    Arguments:
        space: R^D, or D.
        sigma: the standard deviation of the noise over unit time, one for all coordinates or one each; positive.
        prior: by default a learnable `GaussianPrior`.
        learnable: whether sigma is learned, each coordinate by itself.
    """

    learns_backward = True

    def __init__(
        self,
        space: Space | int,
        sigma: float | Sequence[float] = 1.0,
        prior: Prior | Callable[[Space], Prior] = GaussianPrior,
        learnable: bool = True,
    ) -> None:
        super().__init__(as_reals(type(self).__name__, space), prior)
        self.register_buffer("sigma", to_scales("sigma", sigma, self.space.dim), persistent=False)
        self.log_factor = nn.Parameter(torch.zeros(self.space.dim), learnable)

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
