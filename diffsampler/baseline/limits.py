"""How much of the mass may lie where numbers end: below 1e-308, say, or nearer to 1 than 1e-16."""

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.target import Target

NARROWEST, WIDEST = 2.0, 0.025  # of the zone before a limit in which mass is measured: nats, and as a share of the way
NOTICED = 1e-3  # mass in a zone; with less, what is beyond is less still, unless it has no integral in reach
MOST = 0.1  # of the mass, beyond which nothing can be said


@torch.no_grad()
def share_beyond(target: Target, x: Tensor, log_weight: Tensor) -> tuple[float, list[str]]:
    """The share of the mass beyond a target's limits, as it falls towards them, and sentences on it.

    The masses of two zones of equal width before a limit say how fast: what falls by a factor r has r / (1 - r) times
    the last zone's beyond.

    Arguments:
        target: with `limits`, or without any.
        x: draws, with shape (n, D).
        log_weight: theirs, with shape (n).

    Raises:
        InputError: if that is much, or does not fall: there may be no integral at all.
    """
    if target.limits is None:
        return 0.0, []
    weight, total, told = log_weight.softmax(0), 0.0, []
    for sign, limit in zip((-1, 1), target.limits, strict=True):
        limit = limit.to(x)
        width = (WIDEST * limit.abs()).clamp(min=NARROWEST)
        to_go = sign * (limit - x)  # before the limit, where positive
        outer, inner = (weight @ ((to_go >= k * width) & (to_go < (k + 1) * width)).to(weight) for k in (0, 1))
        for column in (outer + inner > NOTICED).nonzero().squeeze(-1).tolist():
            ratio = float(outer[column] / inner[column]) if inner[column] > 0 else 1.0
            beyond = float(outer[column]) * ratio / (1 - ratio) if ratio < 1 else 1.0
            where = f"{_name(target, column)} is nearer to the edge of what it may be than double precision can tell"
            if beyond > MOST:
                raise InputError(
                    f"Much of the mass of {type(target).__name__} lies where {where}, or it has no integral there: "
                    "take a prior that falls towards that edge, or the logarithm for a parameter."
                )
            if beyond > NOTICED:
                told.append(f"Some {beyond:.1%} of the mass lies where {where}: log Z is without it.")
                total += beyond
    return total, told


def _name(target: Target, column: int) -> str:
    for name, columns in getattr(target, "columns", {}).items():
        if columns.start <= column < columns.stop:
            return name
    return f"x[{column}]"
