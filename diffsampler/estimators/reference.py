"""The plain reference: search, then tempered SMC, without learning and without tuning."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import check_count
from diffsampler.estimators.components import GaussianComponents
from diffsampler.estimators.moves import AnnealedPath, default_move
from diffsampler.estimators.search import (
    follow_gradients,
    follow_population,
    starts_at_all_radii,
    unexplained_peaks,
)
from diffsampler.estimators.tempering import Annealed, smc
from diffsampler.target import CountedTarget, Target, check_repeatable, points_of_all_sizes

__all__ = ["more_draws", "reference"]

NUM_PATHS = 48
NUM_SCATTERED = 12_000
BROAD_SHARE = 0.4


@torch.no_grad()
def reference(
    target: Target | CountedTarget,
    num_particles: int = 2000,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[float], None] | None = None,
) -> Annealed:
    """log Z and draws of a density of which nothing is known, in 20 000 evaluations and 50 to 200 for each particle.

    Quasi-Newton paths from starts at all distances find Gaussians around modes; a small SMC run, started from those and
    from a broad Gaussian over them all, finds what they missed; paths from its particles start the final run. Targets
    with `differentiable=False` do with populations and random walks instead.

    Arguments:
        target: the density.
        num_particles: of the final run; half as many explore.
        seed: of a fresh generator.
        generator: the source of all noise, instead of a seed.
        progress: is told the fraction of the work that is done, now and then.

    Raises:
        InputError: if the density is zero, or no number, wherever the search looks.
    """
    check_count("num_particles", num_particles, minimum=100)
    counter = target if isinstance(target, CountedTarget) else CountedTarget(target)
    if generator is None:
        generator = torch.Generator(_device_of(counter.target))
        generator.seed() if seed is None else generator.manual_seed(seed)
    check_repeatable(counter, points_of_all_sizes(counter.target.dim, generator.device))
    tell = (lambda done: None) if progress is None else progress
    move, num_moves = default_move(counter.target)

    def climb(prior: GaussianComponents, n: int, start: float, end: float) -> Annealed:
        return smc(
            counter, prior, n, num_moves, move, generator=generator, progress=lambda b: tell(start + b * (end - start))
        )

    if not counter.target.differentiable:
        found = follow_population(counter, generator=generator)
    else:
        found = follow_gradients(counter, starts_at_all_radii(counter, generator=generator), generator)
    tell(0.1)
    broad = GaussianComponents.fitted_to(found.sample(2000, generator), widening=2.5)
    if counter.target.differentiable:
        peaks = unexplained_peaks(counter, broad.sample(NUM_SCATTERED, generator), found.widened(2.0))
        if len(peaks):
            found = found.mixed_with(follow_gradients(counter, peaks, generator), 0.5)
            broad = GaussianComponents.fitted_to(found.sample(2000, generator), widening=2.5)
    explored = climb(found.widened(1.5).mixed_with(broad, BROAD_SHARE), num_particles // 2, 0.1, 0.4)
    around = GaussianComponents.fitted_to(explored.x, widening=1.3)
    if counter.target.differentiable:
        found = follow_gradients(counter, explored.resampled(NUM_PATHS, generator), generator).widened(1.3)
        tell(0.5)
        around = found.mixed_with(around, 0.5)
    return climb(around, num_particles, 0.5, 1.0)


@torch.no_grad()
def more_draws(target: CountedTarget, found: Annealed, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n points: the draws of an annealed estimate, and where further moves take them, with shape (n, D)."""
    move, num_moves = default_move(target.target)
    path = AnnealedPath(target, found.prior, move)
    particles, points = path.at(found.x), [found.x]
    while len(points) * len(found.x) < n:
        for _ in range(num_moves // 2):
            particles, _ = move.apply(path, particles, found.ladder[-1], generator)
        points.append(particles.x)
    return torch.cat(points)[-n:]


def _device_of(target: Target) -> torch.device:
    tensor = next(target.buffers(), next(target.parameters(), torch.empty(0)))
    return tensor.device
