"""One independent search, from what it has found to a proposal with weighted draws."""

from collections.abc import Callable

import torch

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.moves import default_move
from diffsampler.baseline.proposal import fit_proposal, gaussian_parts
from diffsampler.baseline.refine import USEFUL_KHAT, Round, refine
from diffsampler.baseline.search_kinds import from_heavy_draws
from diffsampler.baseline.tempering import smc
from diffsampler.counted import CountedTarget

__all__ = ["replicate"]

BROAD, BROAD_SHARE = 2.5, 0.4
NUM_EXPLORERS = 1000
KEPT_SHARE = 0.3


def replicate(
    target: CountedTarget,
    found: GaussianComponents,
    generator: torch.Generator | None = None,
    progress: Callable[[float], None] | None = None,
) -> Round:
    """Temper from what one search has found, fit, and refine; again, where single draws weigh much, with their modes.

    Arguments:
        target: the density.
        found: by one of `KINDS`.
        generator: the source of all noise.
        progress: is told the fraction of the work that is done.
    """
    tell = (lambda done: None) if progress is None else progress
    best = _explored(target, found, generator, lambda done: tell(0.8 * done))
    if best.khat > USEFUL_KHAT and best.log_weight.isfinite().any():
        more = from_heavy_draws(target, found, best.x, best.log_weight, generator)
        if len(more.loc) > len(found.loc):
            best = _explored(target, more, generator, lambda done: tell(0.8 + 0.2 * done))
    tell(1.0)
    return best


def _explored(
    target: CountedTarget, found: GaussianComponents, generator: torch.Generator | None, tell: Callable[[float], None]
) -> Round:
    broad = GaussianComponents.fitted_to(found.sample(2000, generator), widening=BROAD)
    move, num_moves = default_move(target)
    start = found.widened(1.5).mixed_with(broad, BROAD_SHARE)
    explored = smc(target, start, NUM_EXPLORERS, num_moves, move, generator=generator, progress=lambda b: tell(0.5 * b))
    # Modes that no explorer has stayed in are kept, too.
    parts = gaussian_parts(found)
    weight, floor = torch.ones_like(explored.x[:, 0]), KEPT_SHARE / len(parts)
    proposal = fit_proposal(explored.x, weight, found.label(explored.x), parts, num_refits=2, floor=floor)
    return refine(target, proposal, generator, progress=lambda done: tell(0.5 + 0.5 * done))
