"""Whether a density answers alike when it is asked again, and says which part of whose failed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError
from diffsampler.target import Target

NUM_REPEATED = 16


def check_repeatable(target: CountedTarget, x: Tensor) -> None:
    """Raise InputError if a target answers the same points differently when it is asked again, or in other company.

    Weights of such values belong to no density: noise widens them, and a mean over the batch is another target in every
    batch.

    Arguments:
        target: the density.
        x: points with shape (n, D), the first of which are asked for.
    """
    x = x[:NUM_REPEATED].double()
    first = target.log_prob(x)
    # The same operations in the same order; on a GPU, sums may come in another.
    if differ(first, target.log_prob(x), 1e-6, 1e-9 if x.device.type == "cpu" else 1e-4):
        raise InputError(
            f"{target.name}.log_prob is random: it gives other values when it is asked for the same points again. Fix "
            "its noise, put a network in eval mode, or return the log of a mean over many draws made beforehand."
        )
    # Sums of other shapes are rounded otherwise, but by less than this; in float32, differences of large terms by more.
    margin = 1e-2 if target.rounding < 1e-10 else 1.0
    if differ(first[1::2].flip(0), target.log_prob(x[1::2].flip(0)), margin, 1e-3):
        raise InputError(
            f"{target.name}.log_prob of a point depends on the other points that it is asked for with, or on their "
            "order. Treat each row of x by itself."
        )


def points_of_all_sizes(dim: int, device: torch.device | str = "cpu") -> Tensor:
    """A few points from near the origin to far from it, float64, with shape (n, D); always the same."""
    noise = torch.randn(NUM_REPEATED, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (torch.logspace(-1, 2, NUM_REPEATED, dtype=torch.float64).unsqueeze(-1) * noise).to(device)


def differ(a: Tensor, b: Tensor, margin: float, rounding: float) -> bool:
    """Whether two answers to the same points differ by more than a margin and a relative error of rounding."""
    return not torch.allclose(a, b, rtol=rounding, atol=margin, equal_nan=True)


@contextmanager
def naming_the_target(target: Target, what: str) -> Iterator[None]:
    """Turn what a user's density raises into one sentence that says where it happened."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{what} failed, in {target.known_as}.log_prob or a part of yours. It is given tensors of shape "
            f"(*, {target.dim}). The error is {type(error).__name__}: {reason}"
        ) from error
