"""Targets with a declared support, as densities on all of R^D: what searches walk in."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.density import CheckedTarget, Density, DerivedDensity
from diffsampler.support import Support, score_through
from diffsampler.target import Target, support_of

FAR = 30.0  # in y, where x is at an edge or past all that is


class UnboundedDensity(DerivedDensity):
    """The density of y, where x = T(y): log R(T(y)) + log |det dx/dy|, with the same normalising constant.

    Far out, where x is an edge to rounding or overflows, NaN is zero density, and no fault of the target.
    """

    def __init__(self, inner: Density | Target, onto: Support) -> None:
        super().__init__(inner, inner.dim)
        self.onto = onto

    def from_user(self, x: Tensor) -> Tensor:
        return self.onto.inverse(self.inner.from_user(x))

    def value(self, x: Tensor) -> Tensor:
        point, log_det = self.onto.forward(x)
        return self._zero_far_out(x, self.inner.value(point) + log_det)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        point, log_det = self.onto.forward(x)
        log_prob, score = self.inner.value_and_score(point)
        score = score_through(self.onto.forward, x, score.to(x.dtype))
        far = (x.abs() > FAR).any(-1, keepdim=True)
        return self._zero_far_out(x, log_prob + log_det), torch.where(far & ~score.isfinite(), 0.0, score)

    def _zero_far_out(self, y: Tensor, log_prob: Tensor) -> Tensor:
        return torch.where((y.abs() > FAR).any(-1) & log_prob.isnan(), -math.inf, log_prob)


@contextmanager
def unbounded(counter: CountedTarget) -> Iterator[Support | None]:
    """Read the target as a density of y in this context; what y is mapped by, None where no support is declared."""
    # What is derived from a target already is a density on all of R^D.
    onto = support_of(counter.density.user_target) if isinstance(counter.density, CheckedTarget) else None
    with nullcontext() if onto is None else counter.reading(UnboundedDensity(counter.density, onto)):
        yield onto
