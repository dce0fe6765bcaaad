"""Noise added to the target until nothing else is seen, and its reversal under a learned control."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_positive
from diffsampler.priors import GaussianPrior, Prior
from diffsampler.processes.base import Process
from diffsampler.spaces import Space, as_reals
from diffsampler.spaces.kernels import GaussianKernel
from diffsampler.spaces.scales import to_scales


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
        space: R^D, or D.
        sigma: the standard deviation of the reference at time 1, one for all coordinates or one each; positive.
        noise_max: the standard deviation of the noise at time 0: several times the target's.
        noise_min: of the last and smallest noise; positive and below noise_max.
        prior: by default N(0, v_0).
    """

    def __init__(
        self,
        space: Space | int,
        sigma: float | Sequence[float] = 1.0,
        noise_max: float = 10.0,
        noise_min: float = 0.1,
        prior: Prior | Callable[[Space], Prior] | None = None,
    ) -> None:
        space = as_reals(type(self).__name__, space)
        scales = to_scales("sigma", sigma, space.dim)
        check_positive("noise_max", noise_max)
        check_positive("noise_min", noise_min)
        if noise_min >= noise_max:
            raise InputError(f"noise_min must be below noise_max = {noise_max}, got {noise_min}.")
        start = (scales.square() + noise_max**2 - noise_min**2).sqrt().tolist()
        super().__init__(space, partial(GaussianPrior, scale=start, learnable=False) if prior is None else prior)
        self.register_buffer("sigma", scales, persistent=False)
        self.noise_max = noise_max
        self.noise_min = noise_min

    @property
    def scale(self) -> Tensor:
        return self.sigma

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
        return GaussianKernel(torch.zeros_like(x), self._variance(t).sqrt()).log_prob(x)

    def _variance(self, t: Tensor) -> Tensor:
        """v_t, with the shape of t broadcast against that of sigma."""
        noise = self.noise_max * (self.noise_min / self.noise_max) ** t
        return self.sigma.square() + (noise.square() - self.noise_min**2)
