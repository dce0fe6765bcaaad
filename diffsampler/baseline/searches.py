"""Searches that know nothing of each other, until none finds what no other has."""

from collections.abc import Callable

import torch

from diffsampler.baseline.agreement import Pool
from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.moves import default_move
from diffsampler.baseline.part import gaussian_parts
from diffsampler.baseline.proposal import fit_proposal
from diffsampler.baseline.propriety import check_proper
from diffsampler.baseline.refine import USEFUL_KHAT, Round, refine
from diffsampler.baseline.search_kinds import KINDS, from_heavy_draws
from diffsampler.baseline.tempering import smc
from diffsampler.counted import CountedTarget
from diffsampler.log_z.estimate import UNSEEN_MASS
from diffsampler.repeatable import check_repeatable, points_of_all_sizes

MAX_SEARCHES = 6
SEARCHES_OF_PIECES = 3  # at least, where there are several modes or pieces
SEARCHES_OF_UNLIKE, MUCH = 5, 0.05  # at least, where one kind of search misses so much of what the other has found
MANY_EVALUATIONS = 1_500_000  # beyond, no search is added
NUM_CHECKED = 16
BROAD, BROAD_SHARE = 2.5, 0.4
NUM_EXPLORERS, KEPT_SHARE = 1000, 0.3


def searched(
    counter: CountedTarget,
    generator: torch.Generator,
    tell: Callable[[float], None],
    max_evaluations: int | None = None,
) -> tuple[list[Round], float]:
    """What each search has come to, and the share of the mass that none may have found."""
    check_repeatable(counter, points_of_all_sizes(counter.dim, generator.device))
    rounds: list[Round] = []
    unseen = 1.0
    limit = MANY_EVALUATIONS if max_evaluations is None else max_evaluations
    while len(rounds) < MAX_SEARCHES:
        k, kind = len(rounds), KINDS[len(rounds) % len(KINDS)]
        # Two are expected; of more, none takes the bar back.
        start, end = (0.4 * k, 0.4 * (k + 1)) if k < 2 else (0.8, 0.8)
        found = kind(counter, generator)
        if not rounds:
            check_proper(counter, torch.cat([found.loc, found.sample(NUM_CHECKED, generator.clone_state())]))
        rounds.append(_replicate(counter, found, generator, lambda done, a=start, b=end: tell(a + done * (b - a))))
        if len(rounds) >= 2:
            pool = Pool(rounds, len(KINDS))
            unseen = pool.unseen
            enough = 2 if all(len(one.proposal.parts) == 1 for one in rounds) else SEARCHES_OF_PIECES
            if pool.missed_by_one_kind > MUCH:
                enough = SEARCHES_OF_UNLIKE
            if len(rounds) >= enough and unseen < UNSEEN_MASS and pool.agrees:
                break
        if counter.num_evaluations > limit and (len(rounds) >= 2 or max_evaluations is not None):
            break
    return rounds, unseen


def _replicate(
    target: CountedTarget, found: GaussianComponents, generator: torch.Generator, tell: Callable[[float], None]
) -> Round:
    """Temper from what one search has found, fit, and refine; again, where single draws weigh much, with their modes.

    `tell` is told the fraction of the work that is done.
    """
    best = explored(target, found, generator, lambda done: tell(0.8 * done))
    if best.khat > USEFUL_KHAT and best.log_weight.isfinite().any():
        more = from_heavy_draws(target, found, best.x, best.log_weight, generator)
        if len(more.loc) > len(found.loc):
            best = explored(target, more, generator, lambda done: tell(0.8 + 0.2 * done))
    tell(1.0)
    return best


def explored(
    target: CountedTarget,
    found: GaussianComponents,
    generator: torch.Generator,
    tell: Callable[[float], None],
    num_explorers: int = NUM_EXPLORERS,
) -> Round:
    """Temper from Gaussians, fit bent ones to what the explorers have come to, and refine."""
    broad = GaussianComponents.fitted_to(found.sample(2000, generator), widening=BROAD)
    move, num_moves = default_move(target)
    start = found.widened(1.5).mixed_with(broad, BROAD_SHARE)
    explored = smc(target, start, num_explorers, num_moves, move, generator=generator, progress=lambda b: tell(0.5 * b))
    # Modes that no explorer has stayed in are kept, too.
    parts = gaussian_parts(found)
    weight, floor = torch.ones_like(explored.x[:, 0]), KEPT_SHARE / len(parts)
    proposal = fit_proposal(explored.x, weight, found.label(explored.x), parts, num_refits=2, floor=floor)
    return refine(target, proposal, generator, tell=lambda done: tell(0.5 + 0.5 * done))
