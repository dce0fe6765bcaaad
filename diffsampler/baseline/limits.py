"""How much of the mass may lie where numbers end: below 1e-308, say, or nearer to 1 than 1e-16."""

import math

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.target import Target

NARROWEST, WIDEST = 2.0, 0.1  # of the zone before a limit in which mass is measured: nats, and as a share of the way
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
        zones = [((to_go >= k * width) & (to_go < (k + 1) * width)).to(weight) for k in (0, 1)]
        (outer, inner), squares = (weight @ zone for zone in zones), [weight.square() @ zone for zone in zones]
        for column in (outer + inner > NOTICED).nonzero().squeeze(-1).tolist():
            last, before = float(outer[column]), float(inner[column])
            # Squares of relative errors: of few draws, or one heavy one, the ratio says little.
            masses = torch.stack([outer[column], inner[column]]).clamp(min=1e-300)
            error = float((torch.stack([square[column] for square in squares]) / masses.square()).sum().sqrt())
            ratio = last / max(before, 1e-300)
            beyond, at_least = _tail(last, ratio), _tail(last, ratio * math.exp(-2 * error))
            where = f"{_name(target, column)} is nearer to the edge of what it may be than double precision can tell"
            if at_least > MOST:
                raise InputError(
                    f"Much of the mass of {type(target).__name__} lies where {where}, or it has no integral there: "
                    "take a prior that falls towards that edge, or the logarithm for a parameter."
                )
            if beyond > NOTICED:
                told.append(f"Some {beyond:.1%} of the mass lies where {where}: log Z is without it.")
                total += beyond
    return total, told


def _tail(last: float, ratio: float) -> float:
    """The mass beyond a zone, where each has `ratio` times that of the one before."""
    return min(last * ratio / (1 - ratio), 1.0) if ratio < 1 else 1.0


def _name(target: Target, column: int) -> str:
    for name, columns in getattr(target, "columns", {}).items():
        if columns.start <= column < columns.stop:
            return name
    return f"x[{column}]"
