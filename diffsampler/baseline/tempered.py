"""The plain reference on a space: tempered SMC from where all directions, angles or sites are alike, several times.

Gaussians around modes are no use where every mode has n! images and a continuum of orientations, or is an angle. What
is uniform or isotropic has all of them alike, and particles that cool down slowly keep them.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from diffsampler.baseline.agreement import Replicates
from diffsampler.baseline.moves import HamiltonianMove, Move, RandomWalkMove
from diffsampler.baseline.propriety import check_proper
from diffsampler.baseline.search import check_resolved
from diffsampler.baseline.starts import Start, widest
from diffsampler.baseline.symmetric import check_symmetric
from diffsampler.baseline.tempering import Annealed, estimate_of_variance, smc
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.errors import InputError
from diffsampler.frames import DensityInCoordinates, DensityOfReals, Frame
from diffsampler.log_z.resampling import step_at_ess
from diffsampler.repeatable import check_repeatable
from diffsampler.spaces import Space
from diffsampler.target import space_of

NUM_RUNS, MAX_RUNS = 3, 12
WIDENINGS = (1.1, 1.4, 1.8)  # of starts, in turns: what all miss does not hang on one of them
GOOD_ERROR = 0.01  # nats, of the mean of all runs
MANY_EVALUATIONS = 20_000_000
ESS_THRESHOLD = 0.9
NUM_PILOT = 256
SMALLEST_BETA = 1e-6  # of which bars know
DISAGREE = 4.0  # standard errors
SCALES = torch.logspace(-3, 4, 57, dtype=torch.float64)
NUM_AT_A_SCALE, NUM_POPULATIONS, EFFECTIVE = 64, 30, 0.25


def tempered_reference(
    counter: CountedTarget,
    frame: Frame,
    num_particles: int,
    generator: torch.Generator,
    tell: Callable[[float], None],
    max_evaluations: int | None = None,
    ess_threshold: float = ESS_THRESHOLD,
) -> Replicates:
    """log Z and draws of a density on a space, by runs of tempered SMC that know nothing of each other.

    Runs are added until the standard error of their mean is 0.01, or the target was evaluated 20 million times.

    Arguments:
        counter: the target, in its own coordinates.
        frame: in which particles walk, and which x is an image of.
        num_particles: of each run.
        generator: the source of all noise.
        tell: is told the fraction of the work that is done.
        max_evaluations: after which no further run begins.
        ess_threshold: the share of particles that stay effective from one temperature to the next.

    Raises:
        InputError: if the density is zero wherever the search looks, has no integral, or lacks a symmetry of its space.
    """
    limit = MANY_EVALUATIONS if max_evaluations is None else max_evaluations
    user_density, space = counter.density, frame.space
    density = DensityInCoordinates(user_density, frame)
    with counter.reading(density):
        start = scaled_start(counter, space, generator)
        x = start.sample(NUM_PILOT, generator)
        check_repeatable(counter, x)
        log_prob = counter.log_prob(x)
        _check_somewhere(counter, log_prob, "")
    check_symmetric(counter, space_of(user_density.user_target), frame(x)[0], generator)
    with counter.reading(density):
        # Before any tempering, which up a density without an integral takes hundreds of rungs.
        check_reals(counter, space, x)
        check_resolved(counter, log_prob)
        move, num_moves = moves_of(counter)
        pilot = smc(counter, start, NUM_PILOT, num_moves, move, ess_threshold, generator=generator)
        tell(0.1)
        runs: list[Annealed] = []
        while len(runs) < MAX_RUNS:
            before, fitted = counter.num_evaluations, start.fitted_to(pilot.x, WIDENINGS[len(runs) % len(WIDENINGS)])
            # Three are expected; of more, none takes the bar back.
            start_of, end_of = (0.1 + 0.85 * min(k, NUM_RUNS) / NUM_RUNS for k in (len(runs), len(runs) + 1))
            progress = partial(_tell_within, tell, start_of, end_of)
            runs.append(
                smc(counter, fitted, num_particles, num_moves, move, ess_threshold, None, None, generator, progress)
            )
            cost = counter.num_evaluations - before
            if len(runs) >= NUM_RUNS and _mean_of(runs)[1] <= GOOD_ERROR**2:
                break
            if counter.num_evaluations + cost > limit and (len(runs) >= NUM_RUNS or max_evaluations is not None):
                break
        found = _together(runs, counter)
    tell(1.0)
    x, log_det = frame(space.wrap(found.x))
    return replace(found, x=x, log_prob=found.log_prob - log_det)


def _tell_within(tell: Callable[[float], None], start: float, end: float, beta: float) -> None:
    """Tell the progress of one run: temperatures fall by orders of magnitude."""
    tell(start + (end - start) * (1 + math.log10(max(beta, SMALLEST_BETA)) / -math.log10(SMALLEST_BETA)))


def check_reals(counter: CountedTarget, space: Space, x: Tensor) -> None:
    """Refuse a density that has no integral over what is no angle."""
    is_real = ~space.angles.to(x.device)
    if is_real.all():
        check_proper(counter, x)
    elif is_real.any():
        highest = x[or_zero_density(counter.log_prob(x)).argmax()]
        try:
            with counter.reading(DensityOfReals(counter.density, space, highest)):
                check_proper(counter, x[:, is_real])
        except InputError as error:
            names = is_real.nonzero().flatten().tolist()
            raise InputError(re.sub(r"x\[(\d+)\]", lambda one: f"x[{names[int(one[1])]}]", str(error))) from None


def moves_of(counter: CountedTarget) -> tuple[Move, int]:
    """Of particles at every rung, and how many."""
    return (HamiltonianMove(8), 4) if counter.differentiable else (RandomWalkMove(), 24)


def scaled_start(counter: CountedTarget, space: Space, generator: torch.Generator) -> Start:
    """A start as wide as a population that follows the density, from the scale where it is highest in the mean.

    References:
        The cross-entropy method, Rubinstein, 1999, for one scale.
    """
    device = generator.device
    if space.is_periodic:
        return widest(space, 1.0, device)
    starts = [widest(space, float(scale), device) for scale in SCALES]
    heights = [or_zero_density(counter.log_prob(one.sample(NUM_AT_A_SCALE, generator))) for one in starts]
    # An integral by draws of each scale: of what has singular cores the mean is of those that keep apart.
    masses = torch.stack([_log_mass(start, height) for start, height in zip(starts, heights, strict=True)])
    tried = f", from the scale {float(SCALES[0]):g} to {float(SCALES[-1]):g}: rescale x, so that its mass is within"
    _check_somewhere(counter, masses, tried)
    start = starts[int(masses.argmax())]
    for _ in range(NUM_POPULATIONS):
        x = start.sample(NUM_AT_A_SCALE * 4, generator)
        log_prob = or_zero_density(counter.log_prob(x))
        ratio = log_prob - start.log_prob_and_score(x)[0]
        usable = ~ratio.isneginf()
        if not usable.any():
            break
        beta = step_at_ess(ratio[usable], 1.0, EFFECTIVE)
        rows = torch.multinomial((beta * (ratio - ratio.max())).exp(), len(x), True, generator=generator)
        narrower = start.fitted_to(x[rows], 1.2)
        if beta == 1.0:
            return narrower
        start = narrower
    return start


def _check_somewhere(counter: CountedTarget, log_prob: Tensor, tried: str) -> None:
    """Refuse a density that is zero, or no number, at all points."""
    if or_zero_density(log_prob).isneginf().all():
        raise InputError(
            f"No log Z: {counter.name}.log_prob is zero density, or no number, at all points that were tried{tried}."
        )


def _log_mass(start: Start, log_prob: Tensor) -> Tensor:
    """A crude log of the density's mass at the scale of a start: volume there, and its better tenth of draws."""
    best = log_prob.topk(max(1, len(log_prob) // 10)).values.mean()
    return best - start.log_prob_and_score(start.centre[None])[0][0]


def _mean_of(runs: list[Annealed]) -> tuple[float, float]:
    """The log of the mean of all Z, and its variance: between runs and within."""
    log_z = torch.tensor([run.estimate.log_z for run in runs], dtype=torch.float64)
    claimed = torch.tensor([run.estimate.variance for run in runs], dtype=torch.float64)
    between = log_z.var() if len(runs) > 1 else torch.zeros(())
    return float(log_z.logsumexp(0)) - math.log(len(runs)), float(torch.maximum(claimed.mean(), between)) / len(runs)


def _together(runs: list[Annealed], counter: CountedTarget) -> Replicates:
    log_z, variance = _mean_of(runs)
    x = torch.cat([run.x for run in runs])
    log_prob = or_zero_density(counter.log_prob(x))
    warnings = []
    claimed = [(run.estimate.log_z, math.sqrt(run.estimate.variance)) for run in runs]
    unseen = 0.0
    if len(runs) == 1:
        unseen = 1.0
        warnings.append("There was one run of SMC alone: what it has missed is not known.")
    worst = max(abs(value - log_z) / max(error, 1e-9) for value, error in claimed)
    if not math.isfinite(variance):
        warnings.append("In a run of SMC all particles descend from too few for an interval. Use more particles.")
    elif worst > DISAGREE:
        warnings.append(
            f"Of {len(runs)} runs of SMC one is {worst:.1f} of its standard errors from the others: they do not mix."
        )
    estimate = estimate_of_variance(log_z, variance, len(x), counter, warnings, not math.isfinite(variance))
    estimate = replace(estimate, unseen=unseen)
    last = runs[-1]
    equal = torch.zeros_like(log_prob)
    return Replicates(estimate, x, equal, last.prior, last.ladder, last.acceptance, log_prob, tuple(claimed))
