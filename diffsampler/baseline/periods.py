"""With what period a density repeats along a coordinate."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.density import or_zero_density

# What angles, phases, degrees, hours, days and months are given in.
IN_TURNS = tuple(math.pi * turn for turn in (0.5, 1, 2, 4))
IN_UNITS = (0.5, 1, 2, 4, 6, 7, 10, 12, 24, 30, 52, 60, 90, 100, 180, 200, 360, 365, 365.25, 366, 400, 720, 1000)
IN_SECONDS = (1440, 3600, 86400)
MULTIPLES = (1, -1, 2, 3, -7, 50, -1000, 10_000)
NUM_PHASES, GOLDEN = 8, 0.6180339887
NUM_ON_GRID, NUM_REFINED = 1024, 8
SAME, SAME_IN_FLOAT32 = 1e-5, 1e-2


def period_of(
    log_prob: Callable[[Tensor], Tensor], x: Tensor, index: int, tried: list[float], in_float32: bool
) -> float | None:
    """The period of log R in coordinate `index` at all of the points x, with shape (B, D); None if there is none.

    At these points it is finite. `tried` are periods to try beside those that are common.
    """
    moves = _Moves(log_prob, x, index, in_float32)
    for period in sorted({*tried, *IN_TURNS, *IN_UNITS, *IN_SECONDS}):
        if moves.repeat(period):
            break
    else:
        period = _from_profile(moves)
        if period is None or not moves.repeat(period):
            return None
    for divisor in (2, 2, 2, 3, 3, 5, 7):
        if moves.repeat(period / divisor):
            period = period / divisor
    return period


class _Moves:
    """A density along one coordinate."""

    def __init__(self, log_prob: Callable[[Tensor], Tensor], x: Tensor, index: int, in_float32: bool) -> None:
        self.log_prob, self.x, self.index = log_prob, x, index
        self.tolerance = SAME_IN_FLOAT32 if in_float32 else SAME
        self.multiples = MULTIPLES[:6] if in_float32 else MULTIPLES

    def at(self, shifts: Tensor, num_points: int = 1) -> Tensor:
        """log R with coordinate `index` moved, with shape (points, *shifts)."""
        x = self.x[:num_points].view(-1, *[1] * shifts.ndim, self.x.shape[1]).repeat(1, *shifts.shape, 1)
        x[..., self.index] += shifts
        return or_zero_density(self.log_prob(x.view(-1, x.shape[-1]))).view(x.shape[:-1])

    def repeat(self, period: float) -> bool:
        """Whether it does, however often the period is taken, and is not constant."""
        # No simple fractions, at which densities may be special.
        share = 0.1 + GOLDEN * torch.arange(NUM_PHASES, dtype=self.x.dtype, device=self.x.device)
        phases = period * share.frac()
        return self._repeats(period, phases[:5], (1,), 1) and self._repeats(period, phases, self.multiples, len(self.x))

    def _repeats(self, period: float, phases: Tensor, multiples: tuple[int, ...], num_points: int) -> bool:
        here = self.at(phases, num_points)
        if not here.isfinite().any():
            return False
        there = self.at(phases.unsqueeze(-1) + period * phases.new_tensor(multiples), num_points)
        finite = here.isfinite()
        size = here[finite].max() - here[finite].min()
        if size <= self.tolerance * (1 + here[finite].abs().max()) and finite.all():
            return False
        close = (there - here.unsqueeze(-1)).abs() <= self.tolerance * (1 + size + 1e-3 * here.abs().unsqueeze(-1))
        return bool((close | (there == here.unsqueeze(-1))).all())


def _from_profile(moves: _Moves) -> float | None:
    """The shift at which a profile matches itself, refined on ever larger multiples of it."""
    like = moves.x
    shifts = torch.logspace(-6, 6, NUM_ON_GRID // 4, dtype=like.dtype, device=like.device)
    change = (moves.at(shifts)[0] - moves.at(like.new_zeros(1))[0]).abs()
    if not change.isfinite().all() or not change.max() > 0:
        return None
    step = 0.3 * float(shifts[change > 0.2 * change.max()][0])
    profile = moves.at(step * torch.arange(NUM_ON_GRID, dtype=like.dtype, device=like.device))[0]
    num_lags = NUM_ON_GRID // 2
    # Mean squares of differences, from the first half to all lags.
    misfit = (profile.unfold(0, num_lags, 1)[1:num_lags] - profile[:num_lags]).square().mean(-1)
    inner = misfit[1:-1]
    dips = (inner < misfit[:-2]) & (inner <= misfit[2:]) & (inner < 0.3 * misfit.median())
    if not dips.any():
        return None
    period = float(dips.nonzero()[0] + 2) * step
    phases = period * torch.arange(4, dtype=like.dtype, device=like.device) / 4
    here = moves.at(phases)[0]
    offsets = torch.linspace(-1, 1, 17, dtype=like.dtype, device=like.device)
    width, multiple = step, 1
    for _ in range(NUM_REFINED):
        for _ in range(2):
            tried = period + width * offsets
            misfit = (moves.at(phases + multiple * tried.unsqueeze(-1))[0] - here).square().mean(-1)
            period, width = float(tried[misfit.argmin()]), width / 6
        multiple *= 6
    return period
