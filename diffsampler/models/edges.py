"""Distributions of torch that are zero outside of their support, as mathematics has it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

import torch
import torch.distributions as all_distributions
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, constraints

# What these say of a value is made of what others do.
_COMPOSED = (Independent, MixtureSameFamily)
_CLASSES = tuple(
    each
    for each in map(all_distributions.__dict__.get, all_distributions.__all__)
    if isinstance(each, type)
    and issubclass(each, Distribution)
    and each not in (Distribution, *_COMPOSED)
    and "log_prob" in vars(each)
)


@contextmanager
def zero_outside() -> Iterator[None]:
    """Within, `log_prob` of every distribution of torch is -inf where its argument is outside of the support.

    torch complains there, for all of a batch, or, where it is told not to, goes on with a formula: an `Exponential`
    has a density of e at -1.
    """
    before = [vars(each)["log_prob"] for each in _CLASSES]
    for each, log_prob in zip(_CLASSES, before, strict=True):
        each.log_prob = _zero_outside(log_prob)
    try:
        yield
    finally:
        for each, log_prob in zip(_CLASSES, before, strict=True):
            each.log_prob = log_prob


def _zero_outside(log_prob: Callable[[Distribution, Tensor], Tensor]) -> Callable[[Distribution, Tensor], Tensor]:
    @wraps(log_prob)
    def masked(self: Distribution, value: Tensor) -> Tensor:
        found, inside = log_prob(self, value), _inside(self, value)
        return found if inside is None else torch.where(inside, found, -torch.inf)

    return masked


def _inside(distribution: Distribution, value: Tensor) -> Tensor | None:
    """Whether values are within the support, or no numbers at all; None where every value is.

    Of matrices with constraints it is not asked: those are parameters, which are within theirs.
    """
    try:
        support = distribution.support
    except NotImplementedError:
        return None
    elementwise = support.event_dim == 0 or support is constraints.simplex
    if support is None or support is constraints.real or not elementwise or not isinstance(value, Tensor):
        return None
    is_no_number = value.isnan() if support.event_dim == 0 else value.isnan().any(-1)
    return support.check(value) | is_no_number
