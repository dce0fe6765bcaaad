"""Ways to search that differ in kind, since what one kind misses every seed of it misses."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.baseline.ascent import follow_gradients
from diffsampler.baseline.components import GaussianComponents, cholesky
from diffsampler.baseline.moves import HamiltonianMove, RandomWalkMove
from diffsampler.baseline.search import (
    FEW_DIMENSIONS,
    all_widths,
    follow_population,
    starts_at_all_radii,
    unexplained_peaks,
)
from diffsampler.baseline.tempering import smc
from diffsampler.baseline.walkers import spread_out
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.spaces.kernels import noise_like, uniform_like

# Peaks among scattered points, in few dimensions; in many they tell little, at a cost that grows as their square.
NUM_SCATTERED, NUM_SCATTERED_FAR = 60_000, 6000
NUM_COOLED, NUM_SHELLS, NUM_PATHS = 1000, 24, 48
BROAD, MAX_SCATTERINGS = 2.5, 3
NEAREST, FARTHEST = 0.5, 300.0  # times the spread of all components
MAX_WALKED, NUM_HEAVY = 96, 16
FAR, MIN_STRAGGLING = 4.0, 0.02  # standard deviations beyond those that a normal draw is away; share of a population
BOXES = (1.5, 3.0, 8.0)  # times the range of a population


class _Search:
    """Gaussians around what one search has found so far, in a target, with its noise."""

    def __init__(self, target: CountedTarget, generator: torch.Generator, found: GaussianComponents) -> None:
        self.target, self.generator, self.found = target, generator, found
        self.num_scattered = NUM_SCATTERED if target.dim <= FEW_DIMENSIONS else NUM_SCATTERED_FAR

    def follow(self, starts: Tensor) -> None:
        """Take in what paths from the starts find, walkers where there are no gradients, unless that is known."""
        if len(starts):
            follow = follow_gradients if self.target.differentiable else _walked
            self.take_in(follow(self.target, starts, self.generator))

    def follow_peaks(self, scattered: Tensor) -> None:
        """Take in what paths from peaks among scattered points find."""
        self.follow(unexplained_peaks(self.target, scattered, self.found))

    def take_in(self, new: GaussianComponents) -> None:
        """Those that neither any of the known nor a new one before accounts for, at half of all weight."""
        height, new_height = (or_zero_density(self.target.log_prob(one.loc)) for one in (self.found, new))
        known = self.found.accounts_for(new, height, new_height).any(1)
        unknown = ~(known | new.accounts_for(new, new_height, new_height).tril(-1).any(1))
        if unknown.any():
            new = GaussianComponents(new.loc[unknown], new.factor[unknown], new.log_weight[unknown].exp())
            self.found = self.found.mixed_with(new, 0.5)

    def at_all_distances(self, n: int) -> Tensor:
        """Points in all directions, most of them as far as the components are from each other and wide: (n, D)."""
        x = self.found.sample(n, self.generator)
        spread = (x - x.mean(0)).square().mean().sqrt()
        # Six of ten within five times as far.
        factor = NEAREST * (FARTHEST / NEAREST) ** uniform_like(x[:, :1], self.generator).square()
        return x.mean(0) + factor * spread * noise_like(x, self.generator)


def from_paths(target: CountedTarget, generator: torch.Generator) -> GaussianComponents:
    """Quasi-Newton paths from all distances, then from peaks among points scattered over all that they found.

    Without gradients, a population that is fitted and redrawn, and walkers instead of paths.
    """
    starts = starts_at_all_radii(target, generator)
    if target.differentiable:
        search = _Search(target, generator, follow_gradients(target, starts, generator))
    else:
        search = _Search(target, generator, follow_population(target, generator))
        search.follow(starts)
    for k in range(MAX_SCATTERINGS):
        before, half = search.found, search.num_scattered // 2
        broad = GaussianComponents.fitted_to(before.sample(2000, generator), widening=BROAD)
        search.follow_peaks(torch.cat([broad.sample(half, generator), search.at_all_distances(half)]))
        if k and search.found is before:  # twice at least: the first often finds nothing by chance
            break
    return search.found


def from_tempering(target: CountedTarget, generator: torch.Generator) -> GaussianComponents:
    """A population cooled down from a start at all distances, then paths from it, and peaks in the box around it."""
    widths = all_widths(NUM_SHELLS, generator.device)
    eye = torch.eye(target.dim, dtype=widths.dtype, device=widths.device)
    start = GaussianComponents(widths.new_zeros(NUM_SHELLS, target.dim), widths[:, None, None] * eye)
    move, num_moves = (HamiltonianMove(4), 1) if target.differentiable else (RandomWalkMove(), 4)
    cooled = smc(target, start, NUM_COOLED, num_moves, move, ess_threshold=0.5, generator=generator).x
    if target.differentiable:
        some = torch.randperm(len(cooled), generator=generator, device=cooled.device)[:NUM_PATHS]
        found = _with_stragglers(follow_gradients(target, cooled[some], generator), cooled)
        search = _Search(target, generator, found)
    else:
        search = _Search(target, generator, GaussianComponents.fitted_to(cooled))
        search.follow_peaks(cooled)
    low, high = cooled.amin(0), cooled.amax(0)
    for widening in BOXES:
        uniform = uniform_like(cooled[:1].expand(search.num_scattered, -1), generator) - 0.5
        search.follow_peaks(0.5 * (low + high) + widening * (high - low) * uniform)
    return search.found


def from_heavy_draws(
    target: CountedTarget, found: GaussianComponents, x: Tensor, log_weight: Tensor, generator: torch.Generator
) -> GaussianComponents:
    """And what paths find from the draws x, with shape (n, D), of most weight: a mode that a proposal hit by luck."""
    search, heaviest = _Search(target, generator, found), log_weight.topk(min(NUM_HEAVY, len(x)))
    search.follow(x[heaviest.indices[heaviest.values.isfinite()]])
    return search.found


def from_known(target: CountedTarget, found: GaussianComponents, generator: torch.Generator) -> GaussianComponents:
    """And what paths find from peaks among points scattered around what is known, near and far."""
    search = _Search(target, generator, found)
    search.follow_peaks(search.at_all_distances(NUM_SCATTERED_FAR))
    return search.found


KINDS: tuple[Callable[[CountedTarget, torch.Generator], GaussianComponents], ...] = (from_paths, from_tempering)


def _with_stragglers(found: GaussianComponents, x: Tensor) -> GaussianComponents:
    """And one for those points of a population, with shape (n, D), that are far from all: a halo, or a long tail."""
    far = found.distance(x) > x.shape[1] ** 0.5 + FAR
    share = float(far.double().mean())
    return found if share < MIN_STRAGGLING else found.mixed_with(GaussianComponents.fitted_to(x[far]), 0.5 * share)


def _walked(target: CountedTarget, starts: Tensor, generator: torch.Generator) -> GaussianComponents:
    """Gaussians around where a few walkers from each of the first starts go: what there is without gradients."""
    starts = starts[:MAX_WALKED]
    eye = torch.eye(starts.shape[1], dtype=starts.dtype, device=starts.device)
    distance = torch.cdist(starts, starts).fill_diagonal_(torch.inf).amin(1).clamp(1e-6, 1e6)
    loc, covariance = spread_out(target, starts, 0.3 * distance[:, None, None] * eye, generator)
    factor, usable = cholesky(covariance)
    return GaussianComponents(loc[usable], factor[usable])
