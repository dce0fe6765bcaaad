"""Noise added to the target until nothing else is seen, and its reversal under a learned control."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_positive
from diffsampler.kernels import GaussianKernel
from diffsampler.priors import Prior
from diffsampler.processes.base import Process
from diffsampler.processes.scales import check_entries, to_scales

__all__ = ["VarianceExploding"]


class VarianceExploding(Process):
    """The process that noises x_1 to x_t = x_1 + n_t^(1/2) noise, and its reversal.

    The noise falls geometrically, n_t = g_t^2 - g_1^2 with g_t = noise_max (noise_min / noise_max)^t, to n_1 = 0. With
    the reference N(0, v_t), v_t = sigma^2 + n_t, and r = v_t / v_s:

        P_F(x_t | x_s) = N(r x_s + (1 - r) v_s^(1/2) u, r (v_s - v_t))
        P_B(x_s | x_t) = N(x_t, v_s - v_t)

    For a target N(0, sigma^2) the control u = 0 is optimal.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2021, arXiv:2011.13456.
        An optimal control perspective on diffusion-based generative modeling, Berner et al., 2024, arXiv:2211.01364.

    Arguments:
        sigma: the standard deviation of the reference at time 1, one for all coordinates or one each; positive.
        noise_max: the standard deviation of the noise at time 0: several times the target's.
        noise_min: of the last and smallest noise; positive and below noise_max.
        prior: by default N(0, v_0).
    """

    def __init__(
        self,
        sigma: float | Sequence[float] = 1.0,
        noise_max: float = 10.0,
        noise_min: float = 0.1,
        prior: Prior | None = None,
    ) -> None:
        super().__init__(prior)
        self.register_buffer("sigma", to_scales("sigma", sigma), persistent=False)
        self.noise_max = check_positive("noise_max", noise_max)
        self.noise_min = check_positive("noise_min", noise_min)
        if noise_min >= noise_max:
            raise InputError(f"noise_min must be below noise_max = {noise_max}, got {noise_min}.")

    @property
    def scale(self) -> Tensor:
        return self.sigma

    def adapt(self, dim: int) -> None:
        super().adapt(dim)
        check_entries(self.sigma, dim)

    def start(self, origin: Tensor) -> GaussianKernel:
        return self._reference(torch.zeros((), dtype=torch.float64, device=origin.device), origin)

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> GaussianKernel:
        before, after = self._variance(s), self._variance(t)
        ratio = after / before
        mean = torch.addcmul(x * ratio.to(x.dtype), u, ((1 - ratio) * before.sqrt()).to(x.dtype))
        return GaussianKernel(mean, (ratio * (before - after)).sqrt())

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> GaussianKernel:
        return GaussianKernel(y, (self._variance(s) - self._variance(t)).sqrt())

    def gaussian_control(self, t: Tensor) -> tuple[Tensor, Tensor]:
        signal = self.sigma.square() / self._variance(t)
        return signal**1.5, signal

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return self._reference(t, torch.zeros_like(x)).log_prob(x)

    def _reference(self, t: Tensor, mean: Tensor) -> GaussianKernel:
        return GaussianKernel(mean, self._variance(t).sqrt())

    def _variance(self, t: Tensor) -> Tensor:
        """v_t, with the shape of t broadcast against that of sigma."""
        noise = self.noise_max * (self.noise_min / self.noise_max) ** t
        return self.sigma.square() + (noise.square() - self.noise_min**2)
