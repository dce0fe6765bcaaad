"""The plain reference: independent searches that agree, then importance weights or tempered SMC, without learning."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from diffsampler.baseline.agreement import DISAGREE, Pool, Replicates
from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.moves import default_move
from diffsampler.baseline.proposal import Proposal, fit_proposal, gaussian_parts
from diffsampler.baseline.propriety import check_proper
from diffsampler.baseline.refine import GOOD_ESS, NUM_DRAWS, USEFUL_KHAT, Round, refine, weigh
from diffsampler.baseline.search_kinds import KINDS, from_heavy_draws
from diffsampler.baseline.tempered import ESS_THRESHOLD, tempered_reference
from diffsampler.baseline.tempering import estimate_of_variance, generator_of, smc
from diffsampler.baseline.unbounded import unbounded
from diffsampler.baseline.wander import wander
from diffsampler.counted import CountedTarget
from diffsampler.density import CheckedTarget, or_zero_density
from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.frames import SpaceFrame, frame_of
from diffsampler.log_z.estimate import UNSEEN_MASS, estimate_log_z
from diffsampler.log_z.resampling import systematic
from diffsampler.log_z.weights import share_of_heavy
from diffsampler.repeatable import check_repeatable, points_of_all_sizes
from diffsampler.spaces import Euclidean
from diffsampler.target import Target

MAX_SEARCHES = 6
SEARCHES_OF_PIECES = 3  # at least, where there are several modes or pieces
SEARCHES_OF_UNLIKE, MUCH = 5, 0.05  # at least, where one kind of search misses so much of what the other has found
MANY_EVALUATIONS = 1_500_000  # beyond, no search is added
USEFUL_ESS = 0.05
DRAWS_A_PARTICLE = 5
NUM_FINAL = 3  # independent runs of SMC, where weights are of no use
NUM_CHECKED = 16
MAX_POOLED = 5
BROAD, BROAD_SHARE = 2.5, 0.4
NUM_EXPLORERS, KEPT_SHARE = 1000, 0.3
NUM_WANDERING = 1000


@torch.no_grad()
def reference(
    target: Target | CountedTarget,
    num_particles: int = 2000,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[float], None] | None = None,
    max_evaluations: int | None = None,
    ess_threshold: float | None = None,
) -> Replicates:
    """log Z and draws of a density of which nothing is known, by searches that know nothing of each other.

    Each search finds Gaussians around modes, in a way of its own (`KINDS`), explores from them by tempered SMC, and
    fits bent Gaussians to what it has drawn, weighs, fits and draws again. Searches are added until none finds what no
    other has. What all have found is the proposal of a last round: importance weights, or, where they are too uneven,
    three runs of SMC.

    References:
        Bayesian stopping rules for multistart global optimization methods, Boender & Rinnooy Kan, 1987.

    Where the target declares its space or coordinates, Gaussians around modes are no use: see `tempered_reference`.

    Arguments:
        target: the density.
        num_particles: of each SMC run; importance weights take five times as many draws.
        seed: of a fresh generator.
        generator: the source of all noise, instead of a seed.
        progress: is told the fraction of the work that is done, now and then.
        max_evaluations: of the target, after which no further search begins; by default a million (on a space of its
            own 20 million), and then two searches at least (three). With one alone nothing is known of what it has
            missed.
        ess_threshold: on a space, the share of particles that stay effective from one temperature to the next: by
            default 0.9; nearer to 1 it cools more slowly, which clusters that freeze need.

    Raises:
        InputError: if the density is zero, or no number, wherever the search looks, or has no integral.
    """
    check_count("num_particles", num_particles, minimum=100)
    if not isinstance(target, CountedTarget):
        target = CountedTarget(check_instance("target", target, Target, "FunctionTarget(log_prob, dim=2)"))
    own = next(target.density.buffers(), next(target.density.parameters(), torch.empty(0)))
    generator = generator_of(seed, generator, own.device)
    tell = (lambda done: None) if progress is None else progress
    if isinstance(target.density, CheckedTarget):
        frame = frame_of(target.density.user_target)
        if not isinstance(frame, SpaceFrame) or type(frame.space) is not Euclidean:
            threshold = ESS_THRESHOLD if ess_threshold is None else ess_threshold
            return tempered_reference(target, frame, num_particles, generator, tell, max_evaluations, threshold)
    if ess_threshold is not None:
        raise InputError("ess_threshold is for targets that declare their space, which are cooled from one start.")
    with unbounded(target) as onto:
        rounds, unseen = _searched(target, generator, tell, max_evaluations)
        found = _weighed(target, rounds, num_particles, generator, tell)
        estimate = replace(found.estimate, num_target_evaluations=target.num_evaluations)
        found = replace(found, estimate=estimate).with_spread(rounds, min(unseen + estimate.unseen, 1.0))
        return found.in_x(onto)


def _searched(
    counter: CountedTarget, generator: torch.Generator, tell: Callable[[float], None], max_evaluations: int | None
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
    best = _explored(target, found, generator, lambda done: tell(0.8 * done))
    if best.khat > USEFUL_KHAT and best.log_weight.isfinite().any():
        more = from_heavy_draws(target, found, best.x, best.log_weight, generator)
        if len(more.loc) > len(found.loc):
            best = _explored(target, more, generator, lambda done: tell(0.8 + 0.2 * done))
    tell(1.0)
    return best


def _explored(
    target: CountedTarget, found: GaussianComponents, generator: torch.Generator, tell: Callable[[float], None]
) -> Round:
    broad = GaussianComponents.fitted_to(found.sample(2000, generator), widening=BROAD)
    move, num_moves = default_move(target)
    start = found.widened(1.5).mixed_with(broad, BROAD_SHARE)
    explored = smc(target, start, NUM_EXPLORERS, num_moves, move, generator=generator, progress=lambda b: tell(0.5 * b))
    # Modes that no explorer has stayed in are kept, too.
    parts = gaussian_parts(found)
    weight, floor = torch.ones_like(explored.x[:, 0]), KEPT_SHARE / len(parts)
    proposal = fit_proposal(explored.x, weight, found.label(explored.x), parts, num_refits=2, floor=floor)
    return refine(target, proposal, generator, tell=lambda done: tell(0.5 + 0.5 * done))


def _weighed(
    counter: CountedTarget,
    rounds: list[Round],
    num_particles: int,
    generator: torch.Generator,
    tell: Callable[[float], None],
) -> Replicates:
    """The estimate of all searches together, by weights or, where these are too uneven, by SMC."""
    pooled = rounds[0].proposal
    for k, one in enumerate(rounds[1:], start=2):
        pooled = pooled.mixed_with(one.proposal, 1 / k)
    last = weigh(counter, pooled, NUM_DRAWS, generator)
    if not (last.ess >= GOOD_ESS and last.khat <= USEFUL_KHAT):
        last = refine(counter, pooled, generator, max_rounds=MAX_POOLED)
    tell(0.9)
    found = _by_weights(counter, last, num_particles, generator)
    found = _by_smc(counter, last.proposal, num_particles, generator) if found is None else found
    tell(1.0)
    return found


def _by_weights(
    target: CountedTarget, last: Round, num_particles: int, generator: torch.Generator
) -> Replicates | None:
    """An estimate, with the share of the mass that may lie beyond its draws, unless weights are of no use."""
    if not (last.ess >= USEFUL_ESS and last.khat <= USEFUL_KHAT):
        return None
    final = weigh(target, last.proposal, DRAWS_A_PARTICLE * num_particles, generator)
    estimate = estimate_log_z(final.log_weight, target.num_evaluations, target.num_invalid, rounding=target.rounding)
    if estimate.ess < USEFUL_ESS or not math.isfinite(estimate.high):
        return None
    rows = systematic(final.log_weight, len(final.x), generator)
    rows = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]
    equal = torch.zeros_like(final.log_weight)
    estimate = replace(estimate, unseen=_beyond(target, final, generator))
    return Replicates(estimate, final.x[rows], equal, last.proposal, [], math.nan, final.log_prob[rows])


def _beyond(target: CountedTarget, final: Round, generator: torch.Generator) -> float:
    """The share of the mass that moves from the draws find where these are all but absent.

    Moved draws of the target weigh more than the heaviest of the draws as often as these say.
    """
    x, log_prob = wander(target, final.proposal, final.x, final.log_weight, NUM_WANDERING, generator)
    share, expected, error = share_of_heavy(log_prob - final.proposal.log_prob(x), final.log_weight)
    excess = share - expected
    return excess if excess > max(UNSEEN_MASS, DISAGREE * error) else 0.0


def _by_smc(target: CountedTarget, proposal: Proposal, num_particles: int, generator: torch.Generator) -> Replicates:
    move, num_moves = default_move(target)
    runs = [smc(target, proposal, num_particles, num_moves, move, generator=generator) for _ in range(NUM_FINAL)]
    x = torch.cat([run.x for run in runs])
    log_prob = or_zero_density(target.log_prob(x))
    log_z = torch.tensor([run.estimate.log_z for run in runs], dtype=torch.float64)
    claimed = torch.tensor([run.estimate.variance for run in runs])
    # Between and within: three runs are too few for the one, and each may be blind to the other.
    variance = float(claimed.mean() + log_z.var()) / len(runs)
    mean = float(log_z.logsumexp(0)) - math.log(len(runs))
    warnings = list(dict.fromkeys(warning for run in runs for warning in run.estimate.warnings))
    estimate = estimate_of_variance(mean, variance, len(x), target, warnings, not math.isfinite(variance))
    estimate = replace(estimate, warnings=list(dict.fromkeys(estimate.warnings)))
    return Replicates(estimate, x, torch.zeros_like(log_prob), proposal, runs[-1].ladder, runs[-1].acceptance, log_prob)
