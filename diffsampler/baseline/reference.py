"""The plain reference: independent searches that agree, then importance weights or tempered SMC, without learning."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from diffsampler.baseline.agreement import DISAGREE, Replicates
from diffsampler.baseline.limits import share_beyond
from diffsampler.baseline.moves import default_move
from diffsampler.baseline.proposal import Proposal
from diffsampler.baseline.refine import GOOD_ESS, NUM_DRAWS, USEFUL_ESS, USEFUL_KHAT, Round, refine, weigh
from diffsampler.baseline.reweighted import KnownDraws, reweighted_reference
from diffsampler.baseline.searches import searched
from diffsampler.baseline.tempered import ESS_THRESHOLD, tempered_reference
from diffsampler.baseline.tempering import estimate_of_variance, generator_of, smc
from diffsampler.baseline.unbounded import unbounded
from diffsampler.baseline.wander import wander
from diffsampler.baseline.warm import searched_from
from diffsampler.counted import CountedTarget
from diffsampler.density import CheckedTarget, or_zero_density
from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.frames import SpaceFrame, frame_of
from diffsampler.log_z.estimate import FAILURES, UNSEEN_MASS, estimate_log_z
from diffsampler.log_z.resampling import systematic
from diffsampler.log_z.weights import share_of_heavy
from diffsampler.spaces import Euclidean
from diffsampler.target import Target

DRAWS_A_PARTICLE = 5
NUM_FINAL = 3  # independent runs of SMC, where weights are of no use
MAX_POOLED = 5
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
    known: Proposal | KnownDraws | None = None,
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
        known: the `prior` of an earlier `Replicates`, of a density much like this one, on R^D: two short searches begin
            from there, and only if these disagree, others from nothing. On a space, draws of it.

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
            warm = None
            if isinstance(known, KnownDraws):
                warm = reweighted_reference(target, frame, known, generator, tell)
            if warm is not None:
                return warm
            threshold = ESS_THRESHOLD if ess_threshold is None else ess_threshold
            return tempered_reference(target, frame, num_particles, generator, tell, max_evaluations, threshold)
    if ess_threshold is not None:
        raise InputError("ess_threshold is for targets that declare their space, which are cooled from one start.")
    with unbounded(target) as onto:
        warm = None if known is None else searched_from(target, known, generator, lambda done: tell(0.8 * done))
        rounds, unseen = searched(target, generator, tell, max_evaluations) if warm is None else warm
        found = _weighed(target, rounds, num_particles, generator, tell)
        beyond, told = share_beyond(target.density.user_target, found.x, found.log_weight)
        estimate = replace(
            found.estimate,
            num_target_evaluations=target.num_evaluations,
            warnings=[*found.estimate.warnings, *told],
        )
        found = replace(found, estimate=estimate, is_warm=warm is not None).with_spread(
            rounds, min(unseen + estimate.unseen + beyond, 1.0)
        )
        return found.in_x(onto)


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
    warnings = [warning for warning in warnings if not warning.endswith(FAILURES)]  # counted once, at the end
    estimate = estimate_of_variance(mean, variance, len(x), target, warnings, not math.isfinite(variance))
    estimate = replace(estimate, warnings=list(dict.fromkeys(estimate.warnings)))
    return Replicates(estimate, x, torch.zeros_like(log_prob), proposal, runs[-1].ladder, runs[-1].acceptance, log_prob)
