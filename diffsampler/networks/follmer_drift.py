"""The Föllmer drift by Monte Carlo: from a reference to any reward without training, and a start for learning."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.density import Density, or_zero_density
from diffsampler.errors import InputError, check_count
from diffsampler.networks.control import Control, FourierMLP
from diffsampler.networks.wrapper import ControlWrapper
from diffsampler.processes import PinnedBrownian, Process

MAX_POINTS = 1 << 17  # that the density is asked at in one call
NARROWEST = 1e-6  # 1 - t, at the end of a path
SMALLEST_SHARE = -5.0  # of the noise; below 0 where the target is wider than the reference


class FollmerDrift(ControlWrapper):
    """u(t, x) = network(t, x) + sigma d/dx log E[rho(y)], y ~ N(x, sigma^2 (1 - t)), rho = R / N(0, sigma^2).

    With E over all y this is the exact control of `PinnedBrownian`: the conversion to R of the flows to all outcomes
    y, which are Brownian bridges. Here E is the mean over a few y, always the same ones relative to x (scrambled Sobol
    points and their mirror images), so that the control is a function of t and x, densities of paths can be computed
    again, and E[w] = Z is exact. What too few draws leave over, importance weights show and the network can learn.

    The derivative is taken of the normal density, of rho, or of a mixture of both: that share is taken, for each
    coordinate, for which the terms of the mean differ least, which makes the control to a Gaussian with independent
    coordinates exact. Without a score it is taken of the normal density alone.

    Every state costs `num_draws` evaluations of the target, which are counted, and in training twice as many. Where
    the target is narrow beside the reference, as in many dimensions, most draws miss it: choose sigma and coordinates
    so that it is not. As a score within a control, the drift is held fixed where paths are differentiated.

    References:
        An entropy approach to the time reversal of diffusion processes, Föllmer, 1985.
        Theoretical guarantees for sampling and inference in generative models with latent diffusions, Tzen & Raginsky,
            2019, arXiv:1903.01608.
        Schrödinger-Föllmer Sampler, Huang et al., 2021, arXiv:2106.10880.
        GFlowNet Foundations, Bengio et al., 2023, arXiv:2111.09266, section 5 (outcome-conditioned flows).

    Arguments:
        process: that it steers, a `PinnedBrownian`.
        network: makes the wrapped control from the process; it may learn widths.
        num_draws: of y at each state; even.
    """

    wraps_widths = True

    def __init__(
        self, process: Process, network: Callable[[Process], Control] = FourierMLP, num_draws: int = 256
    ) -> None:
        if not isinstance(process, PinnedBrownian):
            raise InputError(f"FollmerDrift is for process=PinnedBrownian, got {type(process).__name__}.")
        super().__init__(process, network)
        if check_count("num_draws", num_draws, minimum=2) % 2:
            raise InputError(f"num_draws must be even, got {num_draws}: every draw has its mirror image.")
        self.num_draws = num_draws
        self.learns_width = self.network.learns_width
        self.register_buffer("sigma", process.sigma.detach().clone(), persistent=False)
        # In checkpoints, since other versions of torch may scramble otherwise.
        self.register_buffer("noise", _normal_draws(num_draws, process.space.dim))
        self._density: tuple[Density, ...] = ()  # no part of this module

    @property
    def evaluations_per_state(self) -> int:
        return self.num_draws

    def walk_on(self, density: Density) -> None:
        self._density = (density,)

    def embed(self, t: Tensor) -> Tensor:
        return torch.cat([1 - t.unsqueeze(-1), self.network.embed(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        left, rest = embedding[..., :1], embedding[..., 1:]
        learned = self.network(rest, x, score)
        if not self._density:  # a part that is looked at before it has a sampler
            return learned
        drift = self._drift(left.detach().double(), x.detach().double()).to(learned)
        return torch.cat([learned[..., : x.shape[-1]] + drift, learned[..., x.shape[-1] :]], -1)

    @torch.no_grad()
    def _drift(self, left: Tensor, x: Tensor) -> Tensor:
        """At states x with shape (*, D), for times left that broadcast against (*, 1)."""
        left, rows = left.expand(*x.shape[:-1], 1).reshape(-1, 1), x.reshape(-1, x.shape[-1])
        size = max(1, MAX_POINTS // self.num_draws)
        pieces = zip(left.split(size), rows.split(size), strict=True)
        return torch.cat([self._drift_of_rows(*piece) for piece in pieces]).view_as(x)

    def _drift_of_rows(self, left: Tensor, x: Tensor) -> Tensor:
        """At states x with shape (n, D), for times left with shape (n, 1)."""
        density, noise, sigma = self._density[0], self.noise.double(), self.sigma.double()
        std = left.clamp(min=NARROWEST).sqrt().unsqueeze(-1)
        y = x.unsqueeze(1) + sigma * std * noise  # (n, N, D)
        if density.differentiable:
            log_prob, score = density.log_prob_and_score(y)
            of_ratio = (sigma * score).nan_to_num(0.0, 0.0, 0.0) + y / sigma
        else:
            log_prob, of_ratio = density.log_prob(y), None
        log_ratio = or_zero_density(log_prob) + 0.5 * (y / sigma).square().sum(-1)
        share = log_ratio.softmax(1).nan_to_num(0.0).unsqueeze(-1)  # NaN where no draw has a density
        of_normal = noise / std
        if of_ratio is None:
            return (share * of_normal).sum(1)
        return _steadiest_mean(share, of_normal, of_ratio)


def _steadiest_mean(share: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The weighted mean of c first + (1 - c) second, with shape (n, D), with c for the least variance.

    Arguments:
        share: the weights, with shape (n, N, 1).
        first, second: terms of the same mean, with shape (n, N, D).
    """
    difference = first - second
    mean, mean_difference = (share * second).sum(1), (share * difference).sum(1)
    centred = difference - mean_difference.unsqueeze(1)
    variance = (share * centred.square()).sum(1)
    covariance = (share * centred * second).sum(1)
    # Where one draw has all the weight, there is nothing to choose by: towards it.
    part = torch.where(variance > 0, -covariance / variance, 1.0).clamp(SMALLEST_SHARE, 1.0)
    return mean + part * mean_difference


def _normal_draws(n: int, dim: int) -> Tensor:
    """n draws of N(0, I), float64, with shape (n, D): always the same."""
    uniform = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0).draw(n // 2, dtype=torch.float64)
    half = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))
    return torch.cat([half, -half])
