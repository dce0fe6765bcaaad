"""Whether an observable is a function of draws at all: asked before a run, not after it."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.observables.base import Observable, columns
from diffsampler.target import Target, points_within

NUM_POINTS = 33


@torch.no_grad()
def try_observable(name: str, observable: Callable[[Tensor], Tensor], target: Target) -> None:
    """Ask an observable at a few points that are made up, at which it may be no number.

    Arguments:
        name: for messages.
        observable: a function of x, with shape (n) or (n, k), for x with shape (n, D), or an `Observable`.
        target: the density.

    Raises:
        InputError: if it returns another shape, or raises at every point.
    """
    # Not as many as there are coordinates, or rows and columns look alike.
    x = points_within(target, NUM_POINTS + (target.dim == NUM_POINTS))
    own = next(target.buffers(), next(target.parameters(), x))
    raised: Exception | None = None
    # Draws are of either precision, and it may fail where a matrix has no factor, say: not everywhere.
    for points in (x.float(), x, *x.float().split(1), *x.split(1)):
        try:
            columns(_values(observable, points.to(own.device)), len(points))
            return
        except InputError as error:
            raise InputError(f"observable {name!r}: {error}") from error
        except Exception as error:
            raised = raised or error
    said = " ".join(str(raised).split())
    raise InputError(
        f"observable {name!r} raises {type(raised).__name__} for x of shape (n, {target.dim}), with n = {len(x)} and "
        f"with n = 1: {said:.200}"
    ) from raised


def _values(observable: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if isinstance(observable, Observable):
        observable = observable.fitted_to(x, torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device))
    return observable(x.clone())
