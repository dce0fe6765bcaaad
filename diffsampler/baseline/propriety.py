"""Has the density an integral? Where it has none, log Z is a number all the same, and worth nothing.

Along the lines x + t v of a direction v, the density must fall faster than 1/t: where it does not, for x in a set of
positive measure, its integral over these lines is infinite, and so it is over the space. Along rays of random
directions it must fall faster than t^-D. And nothing that is the same at (c x1, x2 / c) for all c has an integral.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffsampler.baseline import directions, reasons, undeclared
from diffsampler.baseline.edges import reason_at_edges
from diffsampler.baseline.periods import period_of
from diffsampler.baseline.reasons import ROUNDING, SLACK, Lines, Reason
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError

NUM_LOOKED_AT, NUM_TAKEN = 128, 16
NUM_BASES, NUM_FIRST = 6, 2
NUM_RADIAL = 16
NUM_TIMES = 5
MAX_AXES, MAX_FOR_FLAT, MAX_ANGLES, MAX_FLAT = 128, 64, 24, 3
SHRINKING = (0.1, 1e-2, 1e-3, 1e-5, 1e-7)
NEAR_THE_BEST = 1e4  # nats
HAS_MASS = 50.0  # nats for each coordinate: of what is lower only a region 1e21 times as wide has mass
ON_AN_EDGE, NUM_BESIDE = 1e-3, 2
RESOLVED = 1e3  # of coordinates, up to which periods of common size are known to all digits that matter
LARGEST = 1e60  # of coordinates, so that powers of what is far beyond are numbers too
# Decades, in units that the density's own width is at most of: a Gaussian of width 1e14 falls in the end.
AXIS_DECADES, AXIS_DECADES_IN_FLOAT32 = (18.0, 30.0), (5.0, 9.0)
# In the smallest width of any coordinate that changes: further out rounding moves points across a ridge.
GIVEN, FOUND, BY_DIFFERENCES, IN_FLOAT32 = (6.0, 13.0), (5.0, 11.0), (4.0, 9.0), (2.0, 5.0)
MIN_DECADES = 2.0
BOUNDED = 1e6  # nats
DOUBLINGS = (1.0, -1.0, 3.0, -5.0, 14.0, -17.0, 40.0, -40.0, 60.0, -60.0)
ROWS_AT_A_TIME, SPLITTING = 4096, 3


@torch.no_grad()
def check_proper(target: CountedTarget, x: Tensor, generator: torch.Generator | None = None) -> None:
    """Refuse a density that has no integral, where a walk far out from a few points can tell.

    Takes some 60 evaluations for each coordinate, 3000 where something looks suspicious.

    Arguments:
        target: the density.
        x: points where its mass is thought to be, with shape (n, D), float64; those of zero density are left out.
        generator: the source of all noise; by default one of a fixed seed, so that no other draws change.

    Raises:
        InputError: if the density does not fall along some direction, not fast enough, repeats for ever, or knows
            coordinates up to a factor only.
    """
    # What is no number at a distance of 1e30 is no fault of the target.
    with target.counting_apart() as spent, np.errstate(all="ignore"):
        reason = reason_at_edges(target, x) or _Walk(target, x, generator).reason()
        num_evaluations, _ = spent()
    target.count(num_evaluations, torch.zeros((), dtype=torch.long, device=x.device))
    if reason is not None:
        names = target.density.user_target.coordinate_names
        are_of_it = names is not None and len(names) == target.dim
        raise InputError(f"{target.name}.log_prob {reasons.by_names(str(reason), names) if are_of_it else reason}.")


class _Walk:
    def __init__(self, target: CountedTarget, x: Tensor, generator: torch.Generator | None) -> None:
        self.target, self.user_target = target, target.density.user_target
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        x = x.double()[x.isfinite().all(-1)]
        x = x * (LARGEST / x.abs().amax(-1, keepdim=True)).clamp(max=1.0)
        x, value = self._of_finite_density(x[_spread_over(len(x), NUM_LOOKED_AT)])
        x = x[value.argsort()[_spread_over(len(x), NUM_TAKEN)]]
        # Points that an early search has may be far off, where underflow makes flat what is not.
        given, x = x, torch.cat([x, *(factor * x for factor in SHRINKING)])
        x, value = self._of_finite_density(x)
        order = value.argsort(descending=True)
        is_given = (order < len(given)) & (value[order] >= value[order[:1]] - HAS_MASS * x.shape[1])
        self.highest = value.max() if len(value) else None
        self.x = x[order][value[order] >= value[order[:1]] - NEAR_THE_BEST]
        self.massive = x[order][is_given] if is_given.any() else self.x
        self.in_float32 = target.density.takes_float32_only
        if not len(x):
            return
        spread = (self.x - self.x[0]).abs().amax(0)
        spread = torch.where(spread > 0, spread, 1.0)
        self.scales = self._scales(spread) if x.shape[1] <= MAX_AXES else spread
        self.unit = max(1.0, float(self.x.abs().max()), float(self.scales.max()))
        self.bases = self._bases(torch.minimum(self.scales, spread))

    def _of_finite_density(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value = self.log_prob(x)
        return x[value.isfinite()], value[value.isfinite()]

    def log_prob(self, x: Tensor) -> Tensor:
        """log R, with shape (*), a few points at a time; NaN where the target gives up, as far out it may."""
        parts = x.reshape(-1, x.shape[-1]).split(ROWS_AT_A_TIME)
        return torch.cat([self._log_prob_of_part(part, SPLITTING) for part in parts]).view(x.shape[:-1])

    def _log_prob_of_part(self, x: Tensor, splitting: int) -> Tensor:
        try:
            return self.target.log_prob(x)
        except Exception:
            if not splitting or len(x) == 1:
                return x.new_full((len(x),), math.nan)
        return torch.cat([self._log_prob_of_part(part, splitting - 1) for part in x.split(math.ceil(len(x) / 8))])

    def noise(self, *shape: int) -> Tensor:
        device = self.generator.device
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64, device=device).to(self.x.device)

    def _scales(self, spread: Tensor) -> Tensor:
        """Widths at the highest point; where it may lie on edges, the medians of these and of those at others."""
        scales = directions.local_scales(self.log_prob, self.massive[0])
        if (scales.isnan() | (scales < ON_AN_EDGE * spread)).any():
            beside = self.massive[_spread_over(len(self.massive), NUM_BESIDE + 1)[1:]]
            others = [directions.local_scales(self.log_prob, x) for x in beside]
            scales = torch.stack([scales, *others]).nanmedian(0).values
        scales = torch.where(scales.isinf(), spread, scales)
        return torch.where(scales.isnan(), scales.nan_to_num(1.0).max().clamp(min=spread), scales)

    def _bases(self, step: Tensor) -> Tensor:
        """Those nearest to the origin, highest first, a little off: on an axis of symmetry a density may be special."""
        near = self.massive.abs().amax(-1).argsort()[: 2 * NUM_BASES].sort().values
        points = self.massive[near[_spread_over(len(near), NUM_BASES, repeated=True)]]
        moved = points + 0.1 * step * self.noise(*points.shape)
        closer = points + 1e-3 * (moved - points)
        for tried in (closer, moved):
            points = torch.where(self.log_prob(tried).isfinite().unsqueeze(-1), tried, points)
        return points

    def walk(self, v: Tensor, ends: Tensor, power: float, bases: Tensor) -> Lines:
        """log R along x + t v for each direction and base."""
        one_coordinate = bool(((v != 0).sum(-1) == 1).all())
        share = torch.linspace(0, 1, NUM_TIMES, dtype=v.dtype, device=v.device)
        log_t = math.log(10) * (ends[:, :1] + share * (ends[:, 1:] - ends[:, :1]))
        # At times in no ratio to each other: nothing that repeats looks constant.
        log_t = log_t + 0.5 * self.noise(len(v), NUM_TIMES).sigmoid() * (share < 1)
        x = bases.unsqueeze(1) + (log_t.exp().unsqueeze(-1) * v.unsqueeze(1)).unsqueeze(1)
        log_prob = self.log_prob(x)
        # So low that the volume is lost in rounding: it stays where it is, and has no mass.
        lost = log_prob < -1 / torch.finfo(torch.float32 if self.in_float32 else v.dtype).eps
        no_number = (log_prob.isnan() | lost).any(-1)
        integrand = log_prob + power * log_t.unsqueeze(1)
        early, late = integrand[..., :2], integrand[..., 3:]
        if one_coordinate:  # which may be an angle
            endless = late.amax(-1) >= early.amin(-1) - SLACK
        else:
            endless = late.amin(-1) >= early[..., 0] - SLACK
        return Lines(v, ends, v.new_full((len(v),), power), log_t, log_prob, endless & ~no_number)

    def confirmed(self, lines: Lines) -> Lines:
        """Those suspicious from the first bases that are endless from most of all of them, or rise."""
        suspicious = lines.those(lines.endless.any(-1))
        if not len(suspicious.v):
            return suspicious
        again = self.walk(suspicious.v, suspicious.ends, float(suspicious.power[0]), self.bases)
        overflows = again.log_prob.isposinf().any(-1).any(-1)
        sure = 2 * again.endless.sum(-1) > NUM_BASES
        for row in (sure & overflows).nonzero().flatten().tolist():
            sure[row] = self._rises_on_the_way(again.v[row], float(again.ends[row, 0]))
        return again.those(sure)

    def _rises_on_the_way(self, v: Tensor, end: float) -> bool:
        """Whether what overflows to infinity has risen before: it may be an accident of rounding."""
        times = torch.logspace(end - 30, end, 61, dtype=v.dtype, device=v.device)
        log_prob = self.log_prob(self.bases[0] + times.unsqueeze(-1) * v)
        before = log_prob[: int(log_prob.isposinf().int().argmax())] if log_prob.isposinf().any() else log_prob
        return bool(len(before) and before[-1].isfinite() and before[-1] > before[0] + 1)

    def reason(self) -> Reason | None:
        """Why there is no integral; None if there seems to be one."""
        if not len(self.x):
            return None
        dim = self.x.shape[1]
        first = self.bases[:NUM_FIRST]
        axes = torch.arange(dim) if dim <= MAX_AXES else self.noise(dim).argsort()[:MAX_AXES].sort().values
        eye = torch.eye(dim, dtype=self.x.dtype, device=self.x.device)[axes]
        decades = AXIS_DECADES_IN_FLOAT32 if self.in_float32 else AXIS_DECADES
        far = self.x.new_tensor(decades) + math.log10(self.unit)
        along_axes = self.walk(torch.cat([eye, -eye]), far.expand(2 * len(eye), 2), 1.0, first)
        periods = self._periods(along_axes)
        if periods:
            every = len(periods) == min(dim, MAX_ANGLES)
            return reasons.repeats(periods, undeclared.angles_declared(self.user_target, [*periods], every))
        radial = directions.scaled(self.noise(NUM_RADIAL, dim) * self.scales)
        everywhere = self.confirmed(self.walk(radial, far.expand(len(radial), 2), float(dim), first))
        endless = self.confirmed(along_axes)
        if len(everywhere.v) == NUM_RADIAL and (dim == 1 or len(endless.v) in (0, 2 * len(eye))):
            return self._apart(everywhere, "in every direction")
        if len(endless.v):
            return self._apart(endless, reasons.named_axes(endless.v))
        for found, others in ((self._oblique(), ""), (everywhere if len(everywhere.v) > 1 else None, " and others")):
            if found is not None:
                return self._along_one(found, others)
        return self._scaling()

    def _apart(self, lines: Lines, where: str) -> Reason:
        """Why there is no integral along lines on which particles, if x is some, fly apart."""
        if undeclared.are_particles(self.user_target):
            found = reasons.along(lines, "as particles fly apart", self.highest)
            return found if found.rises else found._replace(ways_out=undeclared.TRAP)
        found = reasons.along(lines, where, self.highest)
        free = None if found.rises else self._free_particles()
        return found.with_way_out(free.way_out_of_flying_apart if free else "")

    def _along_one(self, lines: Lines, others: str) -> Reason:
        """The same for directions of several coordinates: one is named."""
        if undeclared.are_particles(self.user_target):
            return self._apart(lines, "")
        free = self._free_particles()
        have_names = self.user_target.coordinate_names is not None
        row = reasons.row_of_blocks(lines.v, free.dimension) if free else 0
        where = f"along {reasons.named_direction(lines.v[row], have_names)}{others}"
        found = reasons.along(lines.those([row]), where, self.highest)
        return found.with_way_out(free.way_out if free else "")

    def _free_particles(self) -> undeclared.Free | None:
        # What has names is none.
        is_named = self.user_target.coordinate_names is not None
        if is_named or self.target.dim != self.user_target.dim or self.target.dim == 1:
            return None
        return undeclared.free_particles(self.user_target, self.log_prob, self.noise, self.target.rounding)

    def _scaling(self) -> Reason | None:
        """Whether some coordinates are known up to a factor only: the others balance it, and its orbits are endless."""
        dim = self.x.shape[1]
        if self.in_float32 or not 1 < dim <= MAX_FOR_FLAT:
            return None
        x = self.bases[(self.bases != 0).all(-1)]
        w = directions.scalings(self.target, self.bases[0], self.scales, self.noise(2 * dim + 8, dim))
        w = w[(w != 0).sum(-1) > 1]
        here = self.log_prob(x).unsqueeze(-1)
        tolerance = (ROUNDING * (1 + here.abs())).clamp(max=SLACK)
        for num_points, num_factors in ((1, 1), (len(x), len(DOUBLINGS))):
            if not len(w) or not len(x):
                return None
            # Powers of 2 lose no digits.
            factor = 2.0 ** (x.new_tensor(DOUBLINGS[:num_factors]).unsqueeze(-1) * w[:, None, None])
            change = self.log_prob(x[:num_points, None] * factor) - here[:num_points]
            w = w[(change.abs() <= tolerance[:num_points]).all(-1).all(-1)]
        return reasons.scaled_at_will(w[0]) if len(w) else None

    def _oblique(self) -> Lines | None:
        """Directions of several coordinates along which the density does not end."""
        dim, like = self.x.shape[1], self.x[:1]
        if dim == 1:
            return None
        noise = self.noise(2 * dim + 8, dim)
        groups = [(torch.cat([directions.translations(like), directions.differences(like)]), GIVEN)]
        if dim <= MAX_FOR_FLAT:
            flat = directions.flat_directions(self.target, self.bases[0], self.scales, noise)
            groups.append((flat, FOUND if self.target.differentiable else BY_DIFFERENCES))
        groups.append((directions.runaways(self.target, self.x, self.scales, noise), GIVEN))
        for v, decades in groups:
            v = v[(v != 0).sum(-1) > 1]
            v = torch.cat([v, -v])
            narrowest = torch.where(v != 0, self.scales / v.abs(), math.inf).amin(-1, keepdim=True)
            ends = self.x.new_tensor(IN_FLOAT32 if self.in_float32 else decades) + narrowest.log10()
            # Far beyond where the points themselves are, or nothing can be told.
            ends[:, 0] = ends[:, 0].clamp(min=math.log10(10 * float(self.massive.abs().max()) + 1e-300))
            enough = ends[:, 1] - ends[:, 0] >= MIN_DECADES
            if enough.any():
                found = self.confirmed(self.walk(v[enough], ends[enough], 1.0, self.bases[:NUM_FIRST]))
                if len(found.v):
                    return found
        return None

    def _periods(self, lines: Lines) -> dict[int, float]:
        """The periods of those coordinates along which the density comes back, far out, to what it was."""
        found: dict[int, float] = {}
        value, change = lines.log_prob, lines.log_prob.diff(dim=-1)
        bounded = (value.isfinite() & ((value - value[..., :1]).abs() < BOUNDED)).all(-1)
        comes_back = bounded & (change > ROUNDING).any(-1) & (change < -ROUNDING).any(-1)
        comes_back = comes_back | (~value[..., :-1].isfinite() & value[..., 1:].isfinite()).any(-1)
        # Far out all large numbers may be whole numbers of periods.
        flat = bounded & lines.endless
        few = flat.any(-1).sum() <= 2 * MAX_FLAT
        if few or self._period_of(int(lines.v[int(flat.any(-1).int().argmax())].abs().argmax())) is not None:
            comes_back = comes_back | flat
        for index in sorted({int(v.abs().argmax()) for v in lines.v[comes_back.any(-1)]})[:MAX_ANGLES]:
            period = self._period_of(index, [*found.values()])
            if period is not None:
                found[index] = period
        return found

    def _period_of(self, index: int, others: Sequence[float] = ()) -> float | None:
        x = self.bases[:3]
        # A search without gradients may have gone so far out that no period of common size can be told there.
        nearer = x * (RESOLVED / x.abs().amax(-1, keepdim=True)).clamp(max=1.0)
        x = torch.where(self.log_prob(nearer).isfinite().unsqueeze(-1), nearer, x)
        return period_of(self.log_prob, x, index, [*others], self.in_float32)


def _spread_over(n: int, count: int, repeated: bool = False) -> Tensor:
    """Indices of `count` among n things, or of all of them."""
    return torch.linspace(0, max(n - 1, 0), count if repeated else min(n, count)).round().long()
