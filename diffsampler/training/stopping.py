"""When training may end: log Z is known well enough, and nothing speaks against it."""

import math

from diffsampler.assessment import assess_draws
from diffsampler.errors import InputError
from diffsampler.log_z import GRADES, LogZEstimate
from diffsampler.sampler import Sampler
from diffsampler.streams import new_generator

__all__ = ["NUM_DECIDING", "half_width", "looks_ready", "progress_in_cycle", "why_to_end"]

NUM_DECIDING = 10_000
FIRST_CYCLE = 400
AMBITIOUS = 1.5  # times the tolerance: what few draws say of the interval of many is uncertain


def looks_ready(estimate: LogZEstimate, tolerance: float) -> bool:
    """Whether the interval of `NUM_DECIDING` draws may be narrow enough, by what few draws say."""
    shrinking = math.sqrt(min(1.0, estimate.num_samples / NUM_DECIDING))
    return half_width(estimate) * shrinking <= AMBITIOUS * tolerance


def why_to_end(sampler: Sampler, tolerance: float, seed: int, step: int) -> str:
    """Why training may end, in words, by fresh draws with a 95 % interval of at most +- tolerance; else "".

    They are graded trustworthy, or what speaks against that is the searches' alone, which no training changes.
    """
    generator = new_generator("decide", seed, step=step, device=sampler.device)
    try:
        x, log_weight = sampler.sample(NUM_DECIDING, return_log_weights=True, generator=generator)
        estimate = sampler.estimate_from(log_weight)
    except InputError:  # no draw of any weight
        return ""
    if not half_width(estimate) <= tolerance:
        return ""
    verdict = assess_draws(sampler, x, log_weight, estimate, generator).verdict
    if verdict.grade == GRADES[0]:
        return f"log Z is known to +- {tolerance:g} and graded trustworthy"
    if verdict.grade == GRADES[1] and not verdict.training_may_help:
        return f"log Z is known to +- {tolerance:g}, and what is doubtful about it no training mends"
    return ""


def half_width(estimate: LogZEstimate) -> float:
    """Of the 95 % interval; inf without one."""
    return max(estimate.high - estimate.log_z, estimate.log_z - estimate.low)


def progress_in_cycle(step: int, total: float) -> float:
    """The fraction that is done of a cycle, each twice as long as the one before: rates fall in each, and rise again.

    Where training ends as soon as it may, a single fall over all steps would come too late.
    """
    start, length = 0, FIRST_CYCLE
    while step >= start + length and start + 2 * length < total:
        start, length = start + length, 2 * length
    end = start + length
    end = total if end + length > total else end  # no short one at the end
    return min((step - start) / max(end - start, 1), 1.0)
