"""Bent maps that depend on a context too: where each member of a family is, as far as draws of some tell."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline.pursuit import Pursuit, features, with_one
from diffsampler.baseline.regression import Conditionals, Fit, fit_conditional, log_scale_of


@dataclass(frozen=True)
class ConditionalMap:
    """x = loc + scale y, each y_o(i) normal given the context and those y before it: `CurvedMap` with more to go by.

    Posteriors of linear models under normal noise, of all data, are its images of one N(0, I).

    Attributes:
        loc: with shape (D).
        scale: with shape (D).
        order: the coordinates of y, first to last.
        fits: of each in that order, given the context and those before it.
    """

    loc: Tensor
    scale: Tensor
    order: tuple[int, ...]
    fits: tuple[Fit, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_conditionals", Conditionals(self.fits))

    @classmethod
    def from_dict(cls, fits: Iterable[dict[str, Any]], **rest: Any) -> "ConditionalMap":
        """What `dataclasses.asdict` gave."""
        return cls(fits=tuple(Fit(**fit) for fit in fits), **rest)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dz|, with shapes (n, D) and (n), for z and contexts with shapes (n, D) and (n, C)."""
        before, log_det = context, self.scale.log().sum().expand(len(z))
        for i, fit in enumerate(self.fits):
            log_scale = log_scale_of(fit, before)
            next_one = features(with_one(before), fit.pairs) @ fit.mean + log_scale.exp() * z[:, i]
            before, log_det = torch.cat([before, next_one.unsqueeze(-1)], -1), log_det + log_scale
        y = torch.empty_like(z)
        y[:, list(self.order)] = before[:, context.shape[1] :]
        return self.loc + self.scale * y, log_det

    def inverse(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dx/dz|, with shapes (n, D) and (n), for x and contexts with shapes (n, D) and (n, C)."""
        y = ((x - self.loc) / self.scale)[:, list(self.order)]
        mean, log_scale = self._conditionals(torch.cat([context, y], -1))
        return (y - mean) * (-log_scale).exp(), self.scale.log().sum() + log_scale.sum(-1)


def fit_conditional_map(x: Tensor, context: Tensor) -> ConditionalMap:
    """The map under which points x, with shape (n, D), of contexts with shape (n, C), are most nearly N(0, I).

    A term is taken where the points speak for it by more than it costs (BIC). Coordinates in their order and the other
    way round are tried.
    """
    weight = torch.full_like(x[:, 0], 1 / len(x))
    loc, scale = x.mean(0), x.std(0).clamp(min=1e-300)
    orders = (tuple(range(x.shape[1])), tuple(reversed(range(x.shape[1]))))
    found = [_fit_in(order, (x - loc) / scale, context, weight) for order in orders[: x.shape[1]]]
    _, order, fits = max(found, key=lambda one: one[0])
    return ConditionalMap(loc, scale, order, fits)


def _fit_in(
    order: tuple[int, ...], y: Tensor, context: Tensor, weight: Tensor
) -> tuple[float, tuple[int, ...], tuple[Fit, ...]]:
    """The log-likelihood of a point less the price of the parameters, the order, and the fits."""
    whole = torch.cat([context, y[:, list(order)]], -1)
    pursuit, first = Pursuit(whole, weight), context.shape[1]
    scores, fits = zip(
        *(
            fit_conditional(whole, column, list(range(column)), weight, pursuit)
            for column in range(first, whole.shape[1])
        ),
        strict=True,
    )
    return sum(scores), order, fits
