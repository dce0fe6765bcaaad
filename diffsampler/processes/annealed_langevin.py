"""Langevin dynamics along a path of densities from prior to target, corrected by a learned control: CMCD."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffsampler.priors import GaussianPrior, Prior
from diffsampler.processes.annealed import AnnealedProcess
from diffsampler.spaces import Space
from diffsampler.spaces.kernels import GaussianKernel


class AnnealedLangevin(AnnealedProcess):
    """Unadjusted Langevin moves on pi_t = prior^(1 - b_t) R^(b_t), with b from 0 to 1. With h = t - s:

        P_F(x_t | x_s) = N(x_s + (sigma^2 / 2 grad log pi_s(x_s) + sigma u(s, x_s)) h, sigma^2 h)
        P_B(x_s | x_t) = N(x_t + (sigma^2 / 2 grad log pi_t(x_t) - sigma u(t, x_t)) h, sigma^2 h)

    One network serves both directions. Without control this is annealed importance sampling with unadjusted moves: a
    sensible sampler before any training. The annealing b, the step sizes sigma (each coordinate, over time) and the
    prior are learned.

    References:
        Transport meets Variational Inference: Controlled Monte Carlo Diffusions, Vargas et al., 2024, arXiv:2307.01050.
        Annealed importance sampling, Neal, 2001.

    Arguments:
        space: R^D, or D.
        sigma: before training, the standard deviation of the noise over unit time: the larger, the more Langevin
            moves. One for all coordinates or one each; positive.
        prior: by default a learnable `GaussianPrior`.
        clip: bound on each entry of the target's score; positive.
        learnable: whether annealing and step sizes are learned.
    """

    shares_control = True

    def __init__(
        self,
        space: Space | int,
        sigma: float | Sequence[float] = 1.0,
        prior: Prior | Callable[[Space], Prior] = GaussianPrior,
        clip: float = 1000.0,
        learnable: bool = True,
    ) -> None:
        super().__init__(space, sigma, prior, clip, learnable)

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> GaussianKernel:
        return self._step(s, t, x, self.annealed_score(s, x, score), u)

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> GaussianKernel:
        return self._step(s, t, y, self.annealed_score(t, y, score), -v)

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return self.prior.log_prob(x)

    def _step(self, s: Tensor, t: Tensor, x: Tensor, score: Tensor, control: Tensor) -> GaussianKernel:
        sigma = self.sigma * self.step_factor(s, t)
        control = torch.addcmul(control, (0.5 * sigma).to(x.dtype), score)
        return GaussianKernel(torch.addcmul(x, (sigma * (t - s)).to(x.dtype), control), sigma * (t - s).sqrt())
