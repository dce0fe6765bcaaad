"""Has the density an integral near the edges of a declared support, and along its half-lines?

Near an edge it must rise less than 1/d in the distance d, towards infinity fall faster: in log d, log R + log d must
fall on the way. In the coordinates y of a search, where log d is y itself, rounding ends before anything shows.
"""

import math

import torch
from torch import Tensor

from diffsampler.baseline.reasons import Reason
from diffsampler.baseline.unbounded import UnboundedDensity
from diffsampler.counted import CountedTarget

WAYS_OUT = "add a prior or a confining term, or fix the coordinate"
MAX_EDGES, NUM_BASES, NUM_DISTANCES = 256, 6, 4
FAR, FAR_IN_FLOAT32 = (100.0, 600.0), (40.0, 80.0)  # of |log d|, towards infinity, and towards an edge at 0
# Towards other edges, where x - edge is rounded: d in units of that, and how many times as much where it begins.
RESOLVED, SPAN, SPAN_IN_FLOAT32 = 100.0, 1e6, 1e3
SLACK = 0.1  # nats: what may be fallen, over many decades, and count as nothing
FLOAT32 = 1e-10  # a rounding above which values are of single precision


@torch.no_grad()
def reason_at_edges(counter: CountedTarget, y: Tensor) -> Reason | None:
    """Why there is no integral; None if there seems to be one, or no support is declared.

    Points y, with shape (n, D), float64, are where the mass of the target, as a search has it, is thought to be.
    """
    if not isinstance(counter.density, UnboundedDensity):
        return None
    onto, found = counter.density.onto, None
    y = y[y.isfinite().all(-1)].clamp(-FAR[0], FAR[0])
    with counter.reading(counter.density.inner):
        bases = onto.forward(y)[0]
        bases = bases[counter.log_prob(bases).isfinite()][: 20 * NUM_BASES]
        bases = bases[torch.linspace(0, max(len(bases) - 1, 0), min(len(bases), NUM_BASES)).long()]
        for column, edge, sign, is_open in onto.edges[:MAX_EDGES]:
            ways = [_towards(edge, counter.rounding), *[_to_infinity(counter.rounding)] * is_open]
            for log_d in (way.to(bases) for way in ways):
                slope = _slope_of_most(counter, bases, column, edge + sign * log_d.exp(), log_d)
                if slope is not None and found is None:
                    found = _said(column, edge, sign, slope, bool(log_d[-1] > log_d[0]))
    return found


def _to_infinity(rounding: float) -> Tensor:
    return torch.linspace(*(FAR_IN_FLOAT32 if rounding > FLOAT32 else FAR), NUM_DISTANCES, dtype=torch.float64)


def _towards(edge: float, rounding: float) -> Tensor:
    if edge == 0:
        return -_to_infinity(rounding)
    span = SPAN_IN_FLOAT32 if rounding > FLOAT32 else SPAN
    nearest = math.log(abs(edge) * max(rounding, torch.finfo(torch.float64).eps) * RESOLVED)
    return torch.linspace(nearest + math.log(span), nearest, NUM_DISTANCES, dtype=torch.float64)


def _slope_of_most(counter: CountedTarget, bases: Tensor, column: int, to: Tensor, log_d: Tensor) -> float | None:
    """d log R / d log d, if from most bases log R + log d does not fall on the way."""
    x = bases.unsqueeze(1).repeat(1, len(to), 1)
    x[..., column] = to
    try:
        log_prob = counter.log_prob(x)
    except Exception:  # far out a target may give up
        return None
    integrand = log_prob + log_d
    endless = (integrand[:, 1:].amin(-1) >= integrand[:, 0] - SLACK) & log_prob.isfinite().all(-1)
    if 2 * endless.sum() <= len(bases):
        return None
    return float(((log_prob[:, -1] - log_prob[:, 0]) / (log_d[-1] - log_d[0]))[endless].median())


def _said(column: int, edge: float, sign: int, slope: float, to_infinity: bool) -> Reason:
    slope, name = round(slope, 3) + 0.0, f"x[{column}]"
    if to_infinity:
        what, least = f"falls too slowly as {name} goes to {'' if sign > 0 else 'minus '}infinity", "less"
    else:
        what, least = f"rises too fast as {name} comes near {edge:g}", "more"
    what = f"{what}, as {slope:.3g} log d where {least} than -1 log d is needed, d = |{name} - {edge:g}|"
    return Reason(what, WAYS_OUT)
