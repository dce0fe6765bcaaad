"""The reference on a space where draws of a density much like this one are known: reweighted, moved, and checked."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsampler.baseline.agreement import DISAGREE, Replicates
from diffsampler.baseline.moves import TargetPath
from diffsampler.baseline.refine import GOOD_ESS
from diffsampler.baseline.symmetric import check_symmetric
from diffsampler.baseline.tempered import ESS_THRESHOLD, GOOD_ERROR, NUM_PILOT, check_reals, moves_of, scaled_start
from diffsampler.baseline.tempering import estimate_of_variance, smc
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.errors import InputError
from diffsampler.frames import DensityInCoordinates, Frame
from diffsampler.log_z.estimate import LogZEstimate, estimate_log_z
from diffsampler.log_z.resampling import systematic
from diffsampler.repeatable import check_repeatable
from diffsampler.target import space_of

MAX_ERROR = 2 * GOOD_ERROR  # nats; beyond it a search from nothing says more
NUM_EXPLORERS = 500
NUM_MOVES = 1


@dataclass(frozen=True)
class KnownDraws:
    """Draws of a density, as a search has left them.

    Attributes:
        x: in the coordinates of the target, with shape (n, D).
        log_prob: of that density there, float64, with shape (n).
        estimate: of its log Z.
    """

    x: Tensor
    log_prob: Tensor
    estimate: LogZEstimate


def reweighted_reference(
    counter: CountedTarget,
    frame: Frame,
    known: KnownDraws,
    generator: torch.Generator,
    tell: Callable[[float], None],
) -> Replicates | None:
    """log Z and draws by weights of known draws, beside a short search that does not know them.

    Weights of draws of the old density have the mean Z_new / Z_old. A run of SMC of few particles must find the same
    log Z, from where runs begin that know nothing: one from around the draws would miss the mode that they miss, where
    a field is turned off say. What both miss is not seen: they know less than several such runs, at a tenth of the
    cost.

    Arguments:
        counter: the target, in its own coordinates.
        frame: in which particles walk, and which x is an image of.
        known: of the density before.
        generator: the source of all noise.
        tell: is told the fraction of the work that is done.

    Returns:
        In the order of the known draws, moved, copies beside what they are of.
        None where the densities differ by too much for weights, the two estimates differ, or little is known.
    """
    log_prob = or_zero_density(counter.log_prob(known.x))
    log_weight = log_prob - known.log_prob
    if not (log_weight > -math.inf).any():
        return None
    weighed = estimate_log_z(log_weight)
    if math.isnan(weighed.khat):  # too few to tell
        return None
    # Both come from the same particles: errors may add up. That of heavy-tailed weights is infinite.
    error = math.sqrt(known.estimate.variance) + math.sqrt(weighed.variance)
    if not (weighed.ess >= GOOD_ESS and error <= MAX_ERROR):
        return None
    log_z, user_density = known.estimate.log_z + weighed.log_z, counter.density
    rows = systematic(log_weight, len(known.x), generator)  # in order, so that copies stay together
    x = known.x[rows]
    check_symmetric(counter, space_of(user_density.user_target), x[:NUM_PILOT], generator)
    with counter.reading(DensityInCoordinates(user_density, frame)):
        z = frame.inverse(x)
        check_repeatable(counter, z[:NUM_PILOT])
        check_reals(counter, frame.space, z[:NUM_PILOT])
        tell(0.1)
        move, num_moves = moves_of(counter)
        start = scaled_start(counter, frame.space, generator)
        try:
            explored = smc(
                counter, start, NUM_EXPLORERS, num_moves, move, ESS_THRESHOLD, None, None, generator,
                lambda beta: tell(0.1 + 0.5 * beta),
            )  # fmt: skip
        except InputError:  # the density is zero wherever it looks
            return None
        own = math.sqrt(explored.estimate.variance)
        if not abs(explored.estimate.log_z - log_z) <= DISAGREE * math.hypot(error, own):
            return None
        # All of them: copies alone are draws of where the density is higher than the known one, and moves, which leave
        # the density as it is, would take them away from there.
        path = TargetPath(counter)
        moved = path.at(z)
        for _ in range(NUM_MOVES):
            moved, _ = move.apply(path, moved, explored.ladder[-1], generator)
        z, log_prob = moved.x, moved.log_prob
        estimate = estimate_of_variance(log_z, error**2, len(z), counter, [], False)
    tell(1.0)
    x, log_det = frame(frame.space.wrap(z))
    claimed = ((log_z, error), (explored.estimate.log_z, own))
    return Replicates(
        estimate, x, torch.zeros_like(log_prob), explored.prior, explored.ladder, explored.acceptance,
        log_prob - log_det, claimed, True,
    )  # fmt: skip
