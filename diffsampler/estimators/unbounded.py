"""Targets with a declared support, as densities on all of R^D: what searches walk in."""

import math
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from diffsampler.estimators.tempering import Annealed
from diffsampler.support import Support, support_of
from diffsampler.target import CountedTarget, Target, in_its_dtype

__all__ = ["UnboundedTarget", "back_in_x", "unbounded"]

FAR = 30.0  # in y, where x is at an edge or past all that is

Found = TypeVar("Found", bound=Annealed)


class UnboundedTarget(Target):
    """The density of y, where x = T(y): log R(T(y)) + log |det dx/dy|, with the same normalising constant.

    Far out, where x is an edge to rounding or overflows, NaN is zero density, and no fault of the target.
    """

    def __init__(self, target: Target, onto: Support) -> None:
        super().__init__(target.dim)
        self.target = target
        self.onto = onto
        self.log_z = target.log_z
        self.differentiable = target.differentiable

    def log_prob(self, x: Tensor) -> Tensor:
        point, log_det = self.onto.forward(x)
        return self._zero_far_out(x, in_its_dtype(self.target, point, self.target.log_prob) + log_det)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        point, log_det = self.onto.forward(x)
        log_prob, score = in_its_dtype(self.target, point, self.target.log_prob_and_score)
        score = self.onto.score_of(x, score.to(x.dtype))
        far = (x.abs() > FAR).any(-1, keepdim=True)
        return self._zero_far_out(x, log_prob + log_det), torch.where(far & ~score.isfinite(), 0.0, score)

    def _zero_far_out(self, y: Tensor, log_prob: Tensor) -> Tensor:
        return torch.where((y.abs() > FAR).any(-1) & log_prob.isnan(), -math.inf, log_prob)


def unbounded(counter: CountedTarget) -> CountedTarget:
    """A counter of the target as a density of y, with the counts so far; the same where no support is declared."""
    onto = support_of(counter.target)
    if onto is None:
        return counter
    inner = CountedTarget(UnboundedTarget(counter.target, onto))
    inner.num_evaluations, inner.num_invalid = counter.num_evaluations, counter.num_invalid
    return inner


def back_in_x(found: Found, onto: Support) -> Found:
    """The same with points and log-densities of x; prior and ladder stay those of y."""
    x, log_det = onto.forward(found.x)
    return replace(found, x=x, log_prob=found.log_prob - log_det)
