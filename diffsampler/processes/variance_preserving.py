"""An Ornstein-Uhlenbeck process that keeps its variance, driven by a learned control: DDS."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from diffsampler.priors import GaussianPrior, Prior
from diffsampler.processes.base import Process
from diffsampler.processes.schedules import CosineSchedule, NoiseSchedule
from diffsampler.spaces import Space, as_reals
from diffsampler.spaces.kernels import GaussianKernel
from diffsampler.spaces.scales import to_scales


class VariancePreserving(Process):
    """The process that noises x_1 to x_t = alpha_t x_1 + sigma (1 - alpha_t^2)^(1/2) noise, and its reversal.

    With a = alpha_s / alpha_t:

        P_F(x_t | x_s) = N(a x_s + (1 - a^2) sigma u, sigma^2 (1 - a^2))
        P_B(x_s | x_t) = N(a x_t, sigma^2 (1 - a^2))

    For a target N(0, sigma^2) the control u = 0 is optimal.

    References:
        Denoising Diffusion Samplers, Vargas et al., 2023, arXiv:2302.13834.

    Arguments:
        space: R^D, or D.
        sigma: the standard deviation of the reference, one for all coordinates or one each; positive.
        schedule: of the noise; by default `CosineSchedule()`.
        prior: by default N(0, sigma^2), which is what noising any target ends in.
    """

    def __init__(
        self,
        space: Space | int,
        sigma: float | Sequence[float] = 1.0,
        schedule: NoiseSchedule | None = None,
        prior: Prior | Callable[[Space], Prior] | None = None,
    ) -> None:
        noise = partial(GaussianPrior, scale=sigma, learnable=False)
        super().__init__(as_reals(type(self).__name__, space), noise if prior is None else prior)
        self.register_buffer("sigma", to_scales("sigma", sigma, self.space.dim), persistent=False)
        self.schedule = CosineSchedule() if schedule is None else schedule

    @property
    def scale(self) -> Tensor:
        return self.sigma

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> GaussianKernel:
        decay, variance = self._decay(s, t)
        mean = torch.addcmul(x * decay.to(x.dtype), u, (variance * self.sigma).to(x.dtype))
        return GaussianKernel(mean, self.sigma * variance.sqrt())

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> GaussianKernel:
        decay, variance = self._decay(s, t)
        return GaussianKernel(y * decay.to(y.dtype), self.sigma * variance.sqrt())

    def gaussian_control(self, t: Tensor) -> tuple[Tensor, Tensor]:
        signal = (2 * self.schedule.log_signal(t)).exp()
        return signal, signal

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_signal = self.schedule.log_signal(t)
        return log_signal.exp(), self.sigma * (-torch.expm1(2 * log_signal)).sqrt()

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return GaussianKernel(torch.zeros_like(x), self.sigma).log_prob(x)

    def _decay(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        log_decay = self.schedule.log_decay(s, t)
        return log_decay.exp(), -torch.expm1(2 * log_decay)
