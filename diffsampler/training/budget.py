"""A budget of target evaluations, of all ranks together."""

import lightning as L

from diffsampler.baseline.propriety import MAX_AXES
from diffsampler.counted import NUM_COMPARED
from diffsampler.errors import InputError, check_count
from diffsampler.sampler import Sampler
from diffsampler.training.checks import CHECK_POINTS
from diffsampler.training.data import TrajectoryCounts

PROPRIETY, PROPRIETY_PER_COORDINATE = 1200, 70  # evaluations of `check_proper`, where nothing looks suspicious


class Budget:
    """Whether there are evaluations left for what comes next.

    Ranks spend alike, so that each can tell from its own count; what they do not is agreed on now and then.

    Arguments:
        sampler: who spends.
        limit: evaluations, the search included; None where there is none.
    """

    def __init__(self, sampler: Sampler, limit: int | None) -> None:
        self.sampler = sampler
        self.limit = None if limit is None else check_count("max_target_evaluations", limit)
        self._step_cost = self._unlike = 0

    def spent(self, trainer: L.Trainer) -> int:
        """So far."""
        return self.sampler.num_target_evaluations * trainer.world_size + self._unlike

    def agree(self, trainer: L.Trainer, total: int) -> None:
        """Take the count over all ranks for what is spent; the rest they evaluate in equal shares."""
        self._unlike = total - self.sampler.num_target_evaluations * trainer.world_size

    def share_spent(self, trainer: L.Trainer) -> float:
        """Of what training has: that of a search is no part of its progress, nor is the last validation."""
        if self.limit is None:
            return 0.0
        before = self.sampler.search_cost * trainer.world_size
        available = self.limit - before - self.validation_cost(trainer)
        return (self.spent(trainer) - before) / max(available, 1)

    def draw_cost(self) -> int:
        """Of a weighted draw."""
        num_steps, policy = self.sampler.grid.num_steps, self.sampler.policy
        at_all = policy.uses_score and self.sampler.guide is None
        return (num_steps + 1 if at_all else 1) + num_steps * policy.evaluations_per_state

    def validation_cost(self, trainer: L.Trainer) -> int:
        """Of a validation; 0 where there is none."""
        counts = trainer.datamodule
        if not isinstance(counts, TrajectoryCounts) or not trainer.limit_val_batches:
            return 0
        share = -(-counts.num_eval_samples // trainer.world_size)
        chunks = -(-share // counts.chunk_size)
        return (share * self.draw_cost() + chunks * NUM_COMPARED) * trainer.world_size

    def note_step(self, cost: int) -> None:
        """Remember what the most expensive step has cost on this rank."""
        self._step_cost = max(self._step_cost, cost)

    def allows_step(self, trainer: L.Trainer, batch_idx: int) -> bool:
        """Whether one more step fits in, with the validation at the end and one that comes before."""
        if self.limit is None:
            return True
        ends_epoch = batch_idx + 1 == trainer.num_training_batches
        ahead = self._step_cost * trainer.world_size + (2 if ends_epoch else 1) * self.validation_cost(trainer)
        return self.spent(trainer) + ahead <= self.limit

    def allows(self, trainer: L.Trainer, num_evaluations: int) -> bool:
        """Whether that many more, and a step and a validation, fit in."""
        if self.limit is None:
            return True
        step = self._step_cost * trainer.world_size
        return self.spent(trainer) + num_evaluations + step + self.validation_cost(trainer) <= self.limit

    def check(self, trainer: L.Trainer, interpolates: bool, is_new: bool) -> None:
        """Raise InputError where the budget is too small for what cannot be left out.

        Arguments:
            trainer: of the run.
            interpolates: whether the loss asks for the target at every state.
            is_new: whether the run begins here, with a check of the target.
        """
        searched, counts, ranks = self.sampler.search_cost, trainer.datamodule, trainer.world_size
        if self.limit is None or not isinstance(counts, TrajectoryCounts):
            return
        if searched >= self.limit:
            raise InputError(
                f"max_target_evaluations must be above the {searched:,} evaluations that the search has spent, got "
                f"{self.limit:,}."
            )
        num_steps = self.sampler.grid.num_steps
        # What a control asks by itself, a rollout and the densities of its paths both ask.
        asked = num_steps * self.sampler.policy.evaluations_per_state
        self._step_cost = counts.batch_size * (asked + (num_steps + 1 + asked if interpolates else self.draw_cost()))
        # Two rollouts, one without weights, and a few points that are asked for again.
        check = (2 * self.draw_cost() + 1) * CHECK_POINTS + 4 * NUM_COMPARED
        # As `check_target` does: a reward on another sampler's draws need have no integral.
        asks = self.sampler.measure is None and self.sampler.reference is None
        if asks and self.sampler.policy.process.space.is_euclidean:
            check += PROPRIETY + PROPRIETY_PER_COORDINATE * min(self.sampler.target.dim, MAX_AXES)
        check = check * ranks if is_new else 0
        step, validation, spent = self._step_cost * ranks, self.validation_cost(trainer), self.spent(trainer)
        if spent + check + step + validation > self.limit:
            raise InputError(
                f"max_target_evaluations must be at least {spent + check + step + validation:,} here, got "
                f"{self.limit:,}: {spent:,} are spent, the check at the start takes {check:,}, a step {step:,}, and "
                f"the validation at the end {validation:,}. Lower batch_size or num_eval_samples."
            )


def share_of_rank(total: int, num_ranks: int, rank: int) -> int:
    """Of a count over all ranks: as even as can be."""
    share, rest = divmod(total, num_ranks)
    return share + (rest if rank == 0 else 0)
