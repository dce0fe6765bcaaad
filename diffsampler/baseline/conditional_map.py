"""Bent maps that depend on a context too: where each member of a family is, as far as draws of some tell."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline.regression import Conditionals, Fit, fit_conditionals


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
        ordered, log_det = self._conditionals.forward(z, context)
        y = torch.empty_like(z)
        y[:, list(self.order)] = ordered
        return self.loc + self.scale * y, self.scale.log().sum() + log_det

    def inverse(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dx/dz|, with shapes (n, D) and (n), for x and contexts with shapes (n, D) and (n, C)."""
        z, log_det = self._conditionals.inverse(((x - self.loc) / self.scale)[:, list(self.order)], context)
        return z, self.scale.log().sum() + log_det


def fit_conditional_map(x: Tensor, context: Tensor) -> ConditionalMap:
    """The map under which points x, with shape (n, D), of contexts with shape (n, C), are most nearly N(0, I).

    A term is taken where the points speak for it by more than it costs (BIC). Coordinates in their order and the other
    way round are tried.
    """
    weight = torch.full_like(x[:, 0], 1 / len(x))
    loc, scale = x.mean(0), x.std(0).clamp(min=1e-300)
    y = (x - loc) / scale
    orders = (tuple(range(x.shape[1])), tuple(reversed(range(x.shape[1]))))
    found = [
        (*fit_conditionals(torch.cat([context, y[:, list(order)]], -1), context.shape[1], weight), order)
        for order in orders[: x.shape[1]]
    ]
    _, fits, order = max(found, key=lambda one: one[0])
    return ConditionalMap(loc, scale, order, fits)
