"""Ways to search that differ in kind, since what one kind misses every seed of it misses."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.baseline.ascent import follow_gradients
from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.moves import HamiltonianMove, RandomWalkMove
from diffsampler.baseline.search import (
    FEW_DIMENSIONS,
    LARGEST_RADIUS,
    SMALLEST_RADIUS,
    follow_population,
    starts_at_all_radii,
    unexplained_peaks,
)
from diffsampler.baseline.tempering import smc
from diffsampler.baseline.walkers import spread_out
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density

__all__ = ["KINDS", "from_heavy_draws", "from_paths", "from_tempering"]

# Peaks among scattered points, in few dimensions; in many they tell little, at a cost that grows as their square.
NUM_SCATTERED, NUM_SCATTERED_FAR = 60_000, 6000
NUM_PATHS = 48
NUM_COOLED = 1000
NUM_SHELLS = 24
BROAD = 2.5
MAX_SCATTERINGS = 3
NEAREST, FARTHEST = 0.5, 300.0  # times the spread of all components
MAX_WALKED = 96
NUM_HEAVY = 16
FAR, MIN_STRAGGLING = 4.0, 0.02  # standard deviations beyond those that a normal draw is away; share of a population
BOXES = (1.5, 3.0, 8.0)  # times the range of a population


def from_paths(target: CountedTarget, generator: torch.Generator | None = None) -> GaussianComponents:
    """Quasi-Newton paths from all distances, then from peaks among points scattered over all that they found.

    Without gradients, a population that is fitted and redrawn, and walkers instead of paths.
    """
    starts = starts_at_all_radii(target, generator=generator)
    if target.differentiable:
        found = follow_gradients(target, starts, generator)
    else:
        found = _joined(target, follow_population(target, generator=generator), _walked(target, starts, generator))
    for k in range(MAX_SCATTERINGS):
        before = len(found.loc)
        broad = GaussianComponents.fitted_to(found.sample(2000, generator), widening=BROAD)
        half = _num_scattered(target) // 2
        scattered = torch.cat([broad.sample(half, generator), _at_all_distances(found, half, generator)])
        found = _with_peaks(target, found, scattered, generator)
        if k and len(found.loc) == before:  # twice at least: the first often finds nothing by chance
            break
    return found


def from_tempering(target: CountedTarget, generator: torch.Generator | None = None) -> GaussianComponents:
    """A population cooled down from a start at all distances, then paths from it, and peaks in the box around it."""
    dim = target.dim
    eye = torch.eye(dim, dtype=torch.float64, device=None if generator is None else generator.device)
    ends = math.log10(SMALLEST_RADIUS), math.log10(LARGEST_RADIUS)
    radii = torch.logspace(*ends, NUM_SHELLS, dtype=eye.dtype, device=eye.device)
    start = GaussianComponents(eye.new_zeros(NUM_SHELLS, dim), radii[:, None, None] * eye)
    move, num_moves = (HamiltonianMove(4), 1) if target.differentiable else (RandomWalkMove(), 4)
    cooled = smc(target, start, NUM_COOLED, num_moves, move, ess_threshold=0.5, generator=generator).x
    if target.differentiable:
        some = torch.randperm(len(cooled), generator=generator, device=cooled.device)[:NUM_PATHS]
        found = _with_stragglers(follow_gradients(target, cooled[some], generator), cooled)
    else:
        found = _with_peaks(target, GaussianComponents.fitted_to(cooled), cooled, generator)
    low, high = cooled.amin(0), cooled.amax(0)
    options = {"generator": generator, "dtype": cooled.dtype, "device": cooled.device}
    for widening in BOXES:
        uniform = torch.rand(_num_scattered(target), dim, **options) - 0.5
        found = _with_peaks(target, found, 0.5 * (low + high) + widening * (high - low) * uniform, generator)
    return found


def from_heavy_draws(
    target: CountedTarget, found: GaussianComponents, x: Tensor, log_weight: Tensor, generator: torch.Generator | None
) -> GaussianComponents:
    """And what paths find from the draws x, with shape (n, D), of most weight: a mode that a proposal hit by luck."""
    heaviest = log_weight.topk(min(NUM_HEAVY, len(x)))
    return _with_paths(target, found, x[heaviest.indices[heaviest.values.isfinite()]], generator)


KINDS: tuple[Callable[[CountedTarget, torch.Generator | None], GaussianComponents], ...] = (from_paths, from_tempering)


def _at_all_distances(found: GaussianComponents, n: int, generator: torch.Generator | None) -> Tensor:
    """Points in all directions, most of them as far as the components are from each other and wide: (n, D)."""
    x = found.sample(n, generator)
    spread = (x - x.mean(0)).square().mean().sqrt()
    options = {"generator": generator, "dtype": x.dtype, "device": x.device}
    # Six of ten within five times as far.
    factor = NEAREST * (FARTHEST / NEAREST) ** torch.rand(n, 1, **options).square()
    return x.mean(0) + factor * spread * torch.randn(x.shape, **options)


def _num_scattered(target: CountedTarget) -> int:
    return NUM_SCATTERED if target.dim <= FEW_DIMENSIONS else NUM_SCATTERED_FAR


def _with_peaks(
    target: CountedTarget, found: GaussianComponents, scattered: Tensor, generator: torch.Generator | None
) -> GaussianComponents:
    """And what paths from peaks among scattered points find, unless that is known."""
    return _with_paths(target, found, unexplained_peaks(target, scattered, found), generator)


def _with_paths(
    target: CountedTarget, found: GaussianComponents, starts: Tensor, generator: torch.Generator | None
) -> GaussianComponents:
    """And what paths from the starts find, walkers where there are no gradients, unless that is known."""
    if not len(starts):
        return found
    follow = follow_gradients if target.differentiable else _walked
    return _joined(target, found, follow(target, starts, generator))


def _with_stragglers(found: GaussianComponents, x: Tensor) -> GaussianComponents:
    """And one for those points of a population, with shape (n, D), that are far from all: a halo, or a long tail."""
    dim = x.shape[1]
    far = found.distance(x) > dim**0.5 + FAR
    share = float(far.double().mean())
    return found if share < MIN_STRAGGLING else found.mixed_with(GaussianComponents.fitted_to(x[far]), 0.5 * share)


def _joined(target: CountedTarget, found: GaussianComponents, new: GaussianComponents) -> GaussianComponents:
    height, new_height = (or_zero_density(target.log_prob(one.loc)) for one in (found, new))
    known = found.accounts_for(new, height, new_height).any(1)
    repeated = new.accounts_for(new, new_height, new_height).tril(-1).any(1)
    unknown = ~known & ~repeated
    return found.joined_by(new, unknown) if unknown.any() else found


def _walked(target: CountedTarget, starts: Tensor, generator: torch.Generator | None) -> GaussianComponents:
    """Gaussians around where a few walkers from each of the first starts go: what there is without gradients."""
    starts = starts[:MAX_WALKED]
    eye = torch.eye(starts.shape[1], dtype=starts.dtype, device=starts.device)
    distance = torch.cdist(starts, starts).fill_diagonal_(torch.inf).amin(1).clamp(1e-6, 1e6)
    loc, covariance = spread_out(target, starts, 0.3 * distance[:, None, None] * eye, generator)
    factor, info = torch.linalg.cholesky_ex(covariance)
    usable = (info == 0) & factor.isfinite().all(-1).all(-1)
    return GaussianComponents(loc[usable], factor[usable])
