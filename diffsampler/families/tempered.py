"""One density at all temperatures."""

import math

import torch
from torch import Tensor

from diffsampler.density import check_values, checked_values_and_score
from diffsampler.errors import InputError, check_positive
from diffsampler.families.family import Family
from diffsampler.families.places import check_places, settle
from diffsampler.target import Target

ROUNDING = 1e-6  # of beta, by which it is no less trained on


class Tempered(Family):
    """R(x)^beta, with log beta for a context: one training gives free energy, energy and heat capacity at any beta.

    d log Z / d beta is minus the mean energy, for the energy -log R; beta^2 times its variance is the heat capacity.

    Arguments:
        target: the density at beta = 1, on R^D or on a support that it declares.
        low, high: of beta; log beta is trained on uniformly between their logarithms. A sampler that is asked for a
            context beyond them warns, and says which beta that is.

    Example:
        >>> from targets import Gaussian
        >>> family = Tempered(Gaussian(mean=[0.0], covariance=1.0))
        >>> round(float(family.given(math.log(2.0)).log_prob(torch.ones(1, 1))), 4)
        -2.8379
    """

    context_names = ("log beta",)

    def __init__(self, target: Target, low: float = 0.1, high: float = 2.0) -> None:
        check_places(type(self).__name__, [target])
        super().__init__(target.dim, 1)
        settle(self, target)
        self.target = target
        self.low, self.high = check_positive("low", low), check_positive("high", high)
        if not self.low < self.high:
            raise InputError(f"low must be below high, got {low} and {high}.")
        self.differentiable = target.differentiable

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        return _times(context[..., 0].exp(), self._log_prob(x))

    def log_prob_and_score(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, score = checked_values_and_score(self.target, x)
        beta = context[..., 0].exp()
        return _times(beta, log_prob), beta.unsqueeze(-1) * score

    def statistics(self, x: Tensor) -> Tensor:
        return self._log_prob(x).unsqueeze(-1)

    def log_prob_of(self, statistics: Tensor, context: Tensor) -> Tensor:
        return _times(context[..., 0].exp(), statistics[..., 0])

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.rand(n, 1, generator=generator)
        return math.log(self.low) + (math.log(self.high) - math.log(self.low)) * uniform

    def beyond_training(self, context: Tensor) -> str | None:
        value, beta = float(context[0]), float(context[0].exp())
        if self.low * (1 - ROUNDING) <= beta <= self.high * (1 + ROUNDING):
            return None
        meant = (
            f": if beta = {value:.4g} was meant, it is math.log({value:.4g})" if self.low <= value <= self.high else ""
        )
        return (
            f"beta = {beta:.4g} is outside of {self.low:g} to {self.high:g}, where beta is trained on. The context "
            f"{value:.4g} is log beta{meant}."
        )

    def log_z_at(self, context: Tensor) -> float | None:
        return self.target.log_z if float(context[0]) == 0 else None

    def _log_prob(self, x: Tensor) -> Tensor:
        """Of the target: one number for all points would be spread over them."""
        return check_values(self.target, x, self.target.log_prob(x))


def _times(beta: Tensor, log_prob: Tensor) -> Tensor:
    """-inf where the density is zero."""
    return torch.where(log_prob.isneginf(), log_prob, beta * log_prob)
