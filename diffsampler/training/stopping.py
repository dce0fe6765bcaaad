"""When training may end: log Z is known well enough, and nothing speaks against it."""

import math

from lightning import Trainer

from diffsampler.assessment import assess_draws
from diffsampler.errors import InputError
from diffsampler.log_z import GRADES, LogZEstimate
from diffsampler.log_z.estimate import KHAT_WARN
from diffsampler.sampler import Sampler
from diffsampler.streams import new_generator

NUM_DECIDING = 10_000
DECIDE_EVERY = 50  # steps: it costs as much as some fifty
FIRST_CYCLE = 400
AMBITIOUS = 1.5  # times the tolerance: what few draws say of the interval of many is uncertain


class Stopping:
    """Decides, now and then, whether fresh draws are good enough to end on.

    Arguments:
        sampler: in training.
        tolerance: of the 95 % interval, half of it; 0 never ends.
        seed: of the run.

    Attributes:
        next_try: the step from which on it may be decided again.
    """

    def __init__(self, sampler: Sampler, tolerance: float, seed: int) -> None:
        self.sampler = sampler
        self.tolerance = tolerance
        self.seed = seed
        self.next_try = 0

    def is_due(self, estimate: LogZEstimate, step: int) -> bool:
        """Whether the interval of `NUM_DECIDING` draws may be narrow enough, by what few draws say; not asked often."""
        if not self.tolerance or step < self.next_try:
            return False
        shrinking = math.sqrt(min(1.0, estimate.num_samples / NUM_DECIDING))
        if half_width(estimate) * shrinking > AMBITIOUS * self.tolerance:
            return False
        self.next_try = step + max(DECIDE_EVERY, step // 4)
        return True

    def why(self, step: int) -> str:
        """Why training may end, in words, by fresh draws with a 95 % interval of at most +- tolerance; else "".

        They are graded trustworthy, or what speaks against that is the searches' alone, which no training changes.
        """
        generator, sampler = new_generator("decide", self.seed, step=step, device=self.sampler.device), self.sampler
        try:
            x, log_weight = sampler.sample(NUM_DECIDING, return_log_weights=True, generator=generator)
            estimate = sampler.estimate_from(log_weight)
        except InputError:  # no draw of any weight
            return ""
        # A tail that shows in some draws only: a few steps make it lighter.
        is_early = step == 0 and estimate.khat > KHAT_WARN
        if is_early or not half_width(estimate) <= self.tolerance:
            return ""
        verdict = assess_draws(sampler, x, log_weight, estimate, generator).verdict
        untrained = ", by the search alone" if sampler.search_cost else ", before any training"
        when = ", before any further training" if sampler.was_trained else untrained
        when = "" if step else when
        if verdict.grade == GRADES[0]:
            return f"log Z is known to +- {self.tolerance:g} and graded trustworthy{when}"
        if verdict.grade == GRADES[1] and not verdict.training_may_help:
            return f"log Z is known to +- {self.tolerance:g}, and what is doubtful about it no training mends{when}"
        return ""


def why_ended(trainer: Trainer, spent: int | None) -> str:
    """Why a trainer has ended by itself, in words.

    Arguments:
        trainer: of the run.
        spent: the budget, if it is.
    """
    if 0 < trainer.max_steps <= trainer.global_step:
        return f"all {trainer.max_steps} steps are done (max_steps)"
    if spent is not None:
        return f"{spent:,} target evaluations are spent (max_target_evaluations)"
    return f"it was stopped at step {trainer.global_step}"


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
