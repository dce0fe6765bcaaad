"""What a model asks of `torch.distributions`: float64 throughout, and densities instead of complaints at edges."""

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily
from torch.distributions.transforms import Transform, _InverseTransform

from diffsampler.models.edges import zero_outside

_defaults = threading.RLock()  # what is changed is torch's own, of all threads


@contextmanager
def in_float64(validates: bool = False) -> Iterator[None]:
    """Within, what is made of plain numbers is float64, and distributions are zero outside of their support.

    That a value comes to lie there, in rounding or by what another one is, is no reason to give up a whole batch.

    Arguments:
        validates: whether they complain instead.
    """
    with _defaults:
        before = torch.get_default_dtype(), Distribution._validate_args
        torch.set_default_dtype(torch.float64)
        Distribution.set_default_validate_args(validates)
        try:
            with nullcontext() if validates else zero_outside():
                yield
        finally:
            torch.set_default_dtype(before[0])
            Distribution.set_default_validate_args(before[1])


def in_double(distribution: Distribution) -> Distribution:
    """A copy whose numbers are float64: of Wishart, normal and other matrices torch accepts no mixture."""
    return _doubled(distribution)


class _Inverse(_InverseTransform):
    """The inverse of a transform, whose copies know of which: torch's own forget that."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()


def _doubled(given: Any) -> Any:
    if isinstance(given, Tensor):
        return given.detach().double() if given.is_floating_point() else given
    if isinstance(given, list | tuple):
        return type(given)(map(_doubled, given)) if type(given) in (list, tuple) else given
    if isinstance(given, _InverseTransform):
        return _Inverse(_doubled(given.inv))
    if isinstance(given, Distribution | Transform):
        given = copy.copy(given)
        given.__dict__.update({name: _doubled(value) for name, value in vars(given).items()})
        if isinstance(given, Distribution):
            given._validate_args = False
        if isinstance(given, MixtureSameFamily) and given.mixture_distribution.batch_shape != given.batch_shape:
            # Of one mixture for many, torch draws nothing.
            given._mixture_distribution = given.mixture_distribution.expand(given.batch_shape)
    return given
