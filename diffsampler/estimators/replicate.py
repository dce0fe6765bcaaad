"""One independent search, from what it has found to a proposal with weighted draws."""

from collections.abc import Callable

import torch

from diffsampler.estimators.components import GaussianComponents
from diffsampler.estimators.moves import default_move
from diffsampler.estimators.proposal import fit_proposal, gaussian_parts
from diffsampler.estimators.refine import Round, refine
from diffsampler.estimators.tempering import smc
from diffsampler.target import CountedTarget

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
    """Temper from what one search has found, fit, and refine.

    Arguments:
        target: the density.
        found: by one of `KINDS`.
        generator: the source of all noise.
        progress: is told the fraction of the work that is done.
    """
    tell = (lambda done: None) if progress is None else progress
    broad = GaussianComponents.fitted_to(found.sample(2000, generator), widening=BROAD)
    move, num_moves = default_move(target.target)
    start = found.widened(1.5).mixed_with(broad, BROAD_SHARE)
    explored = smc(target, start, NUM_EXPLORERS, num_moves, move, generator=generator, progress=lambda b: tell(0.5 * b))
    # Modes that no explorer has stayed in are kept, too.
    parts = gaussian_parts(found)
    weight, floor = torch.ones_like(explored.x[:, 0]), KEPT_SHARE / len(parts)
    proposal = fit_proposal(explored.x, weight, found.label(explored.x), parts, num_refits=2, floor=floor)
    return refine(target, proposal, generator, progress=lambda done: tell(0.5 + 0.5 * done))
