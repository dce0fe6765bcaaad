"""The control that leads to a mixture of Gaussians, in closed form, around any network that corrects it."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.errors import check_positive
from diffsampler.networks.control import Control
from diffsampler.networks.wrapper import ControlWrapper
from diffsampler.processes import Process

NUM_TIMES = 4  # what the closed form needs to know of a time


class MixtureControl(ControlWrapper):
    """Mean and width of the exact backward step of `VariancePreserving` from a mixture of Gaussians, and a correction.

    Each step is the Gaussian of the mean and the variances that x_t given x_s has if x_1 comes from the mixture; the
    wrapped network, which learns widths, adds to both. Many narrow modes far from each other, which a perceptron
    takes long to learn, are there from the beginning.

    Arguments:
        process: that it steers, a `VariancePreserving`.
        network: makes the wrapped control from the process; it must learn widths.
        mixture: gives the mixture, or None as long as there is none: then nothing is added.
        step: how far apart the times of the grid are.
    """

    learns_width = True
    wraps_widths = True

    def __init__(
        self,
        process: Process,
        network: Callable[[Process], Control],
        mixture: Callable[[], GaussianComponents | None],
        step: float,
    ) -> None:
        super().__init__(process, network)
        self.mixture = mixture
        self.step = check_positive("step", step)
        self._signal = process.gaussian_control
        self._known: tuple[GaussianComponents, tuple[Tensor, ...]] | None = None

    def embed(self, t: Tensor) -> Tensor:
        times = t.double().unsqueeze(-1)
        now, then = self._signal(times)[0], self._signal((times + self.step).clamp(max=1.0))[0]
        known = torch.cat([now.sqrt(), 1 - now, then.sqrt(), 1 - then], -1).to(t.dtype)
        return torch.cat([known, self.network.embed(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        times, rest = embedding[..., :NUM_TIMES], embedding[..., NUM_TIMES:]
        learned = self.network(rest, x, score)
        mixture = self.mixture()
        return learned if mixture is None else learned + self._exact(mixture, times, x)

    def _exact(self, mixture: GaussianComponents, times: Tensor, x: Tensor) -> Tensor:
        """Control and log of the factor on the step's width, with shape (*, 2 D)."""
        loc, axes, variances, log_weight = self._axes_of(mixture, x)
        # Of every component, with shapes (*, 1, 1), beside (*, K, D) below.
        signal, noise, next_signal, next_noise = times.unsqueeze(-2).split(1, -1)
        spread, next_spread = signal**2 * variances + noise, next_signal**2 * variances + next_noise
        decay = signal / next_signal
        lost = (1 - decay.square()).clamp(min=1e-12)  # the variance of a backward step
        along = _each(x.unsqueeze(-2) - signal * loc, axes)
        share = (log_weight - 0.5 * (along.square() / spread + spread.log()).sum(-1)).softmax(-1).unsqueeze(-1)
        means = next_signal * loc + _each(decay * next_spread / spread * along, axes.mT)
        within = _each(next_spread * lost / spread, axes.mT.square())
        mean = (share * means).sum(-2)
        variance = (share * (within + (means - mean.unsqueeze(-2)).square())).sum(-2)
        decay, lost = decay.squeeze(-2), lost.squeeze(-2)
        control = (mean - decay * x) / lost
        return torch.cat([control, 0.5 * (variance / lost).clamp(min=1e-10).log()], -1)

    def _axes_of(self, mixture: GaussianComponents, like: Tensor) -> tuple[Tensor, ...]:
        """Means, principal axes, variances along them, and log-weights; kept until mixture or dtype change."""
        known = None if self._known is None else self._known[1][0]
        if known is None or self._known[0] is not mixture or (known.dtype, known.device) != (like.dtype, like.device):
            variances, axes = torch.linalg.eigh(mixture.factor @ mixture.factor.mT)
            parts = mixture.loc, axes, variances, mixture.log_weight
            self._known = mixture, tuple(part.to(like) for part in parts)
        return self._known[1]


def _each(rows: Tensor, matrices: Tensor) -> Tensor:
    """Rows of each component, with shape (*, K, D), times its matrix, (K, D, D): K large products, not one a row."""
    return torch.einsum("...kd,kde->...ke", rows, matrices)
