"""Searches of a density much like one that was searched before, which begin from what was found there."""

from collections.abc import Callable

import torch

from diffsampler.baseline.agreement import Pool
from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.proposal import Proposal
from diffsampler.baseline.propriety import check_proper
from diffsampler.baseline.refine import USEFUL_ESS, Round, refine
from diffsampler.baseline.search import known_to_the_target
from diffsampler.baseline.search_kinds import from_known
from diffsampler.baseline.searches import NUM_CHECKED, explored
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError
from diffsampler.log_z.estimate import UNSEEN_MASS
from diffsampler.repeatable import check_repeatable, points_of_all_sizes

NUM_KNOWN = 1000  # of draws that stand for a part, or a prior
LIGHT = 0.03  # of the weight of the heaviest part: parts that searches have kept in case
PRIOR_SHARE = 0.3
NUM_EXPLORERS = 500


def searched_from(
    target: CountedTarget, known: Proposal, generator: torch.Generator, tell: Callable[[float], None]
) -> tuple[list[Round], float] | None:
    """What two searches have come to, and the share of the mass that both may have missed; None if they do not agree.

    One fits the known proposal to the target, the other tempers from a start several times as wide, from peaks among
    points scattered near and far, and from the target's own starting points, of its prior say. What both miss is not
    seen: they know less than searches that begin from nothing, at a quarter of the cost.
    """
    known = known.without(LIGHT)
    check_repeatable(target, points_of_all_sizes(target.dim, generator.device))
    wide = from_known(target, _as_gaussians(target, known, generator), generator)
    check_proper(target, torch.cat([wide.loc, wide.sample(NUM_CHECKED, generator.clone_state())]))
    try:
        near = refine(target, known, generator, tell=lambda done: tell(0.5 * done))
        rounds = [near, explored(target, wide, generator, lambda done: tell(0.5 + 0.5 * done), NUM_EXPLORERS)]
    except InputError:  # the density is zero wherever they look
        return None
    if min(one.ess for one in rounds) < USEFUL_ESS:
        return None
    pool = Pool(rounds, num_kinds=1)
    return (rounds, pool.unseen) if pool.agrees and pool.unseen < UNSEEN_MASS else None


def _as_gaussians(target: CountedTarget, known: Proposal, generator: torch.Generator) -> GaussianComponents:
    """One for each part of a proposal, and one for what the target knows of by itself."""
    fits = [GaussianComponents.fitted_to(part.sample(NUM_KNOWN, generator)) for part in known.parts]
    found = GaussianComponents(
        torch.cat([fit.loc for fit in fits]), torch.cat([fit.factor for fit in fits]), known.log_weight.exp()
    )
    prior = known_to_the_target(target, NUM_KNOWN, found.loc, generator)
    return found if len(prior) < 2 else found.mixed_with(GaussianComponents.fitted_to(prior), PRIOR_SHARE)
