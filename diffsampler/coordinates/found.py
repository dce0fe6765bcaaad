"""Coordinates that a search finds, whatever they are: with the draws and the estimate that it has left."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline import Replicates
from diffsampler.coordinates.base import DoubleCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.log_z import LogZEstimate
from diffsampler.repeatable import differ
from diffsampler.target import Target

NUM_REMEMBERED = 16
NUM_HELD_OUT = 2000


class FoundCoordinates(DoubleCoordinates):
    """Coordinates that change nothing until `search`.

    The draws that they were found by are kept, in checkpoints too: training can start from them.

    Attributes:
        points: the draws, in the target's own coordinates, float64, with shape (n, D).
        reference: what the search estimated log Z to be, None before it.
        is_warm: whether the search began from what an earlier one had found of another target.
        smallest_search: evaluations that searching may take at least, and what is made of them.
    """

    points: Tensor
    reference: LogZEstimate | None = None
    is_warm: bool = False
    smallest_search: int = 800_000  # one search of most densities, and what fits proposals to it
    _log_prob_then: list[float] | None = None

    @abstractmethod
    def search(
        self,
        counter: CountedTarget,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        max_evaluations: int | None = None,
    ) -> Replicates:
        """Find the coordinates by `diffsampler.baseline.reference`, which is returned.

        Arguments:
            counter: the target in its own coordinates.
            seed: of the search.
            progress: is told the fraction of the work that is done, now and then.
            max_evaluations: of the target, after which no further search begins.
        """

    def move_to(self, target: Target) -> None:
        """Forget the reference, which says nothing of another target; the next search may begin from the rest."""
        super().move_to(target)
        self.reference, self._log_prob_then, self.num_target_evaluations = None, None, 0

    def image(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Points x, with shape (n, D), moved at random by what leaves the target unchanged: as likely as before."""
        return x

    @property
    def points_to_learn(self) -> Tensor:
        """Those that training starts from, with shape (m, D)."""
        return self.points[: len(self.points) - self.num_held_out]

    @property
    def num_held_out(self) -> int:
        """How many of the points, the last ones, training never sees: a network knows those that it was fitted to."""
        return min(NUM_HELD_OUT, len(self.points) // 2)

    @property
    def is_found(self) -> bool:
        """Whether `search` was called, on this object or on that of a checkpoint."""
        return self.reference is not None

    @torch.no_grad()
    def is_outdated(self, counter: CountedTarget) -> bool:
        """Whether the target, in its own coordinates, gives other values at points of the search than it did then.

        Data that have changed make it another target, for which the old reference says nothing.
        """
        if self._log_prob_then is None:
            return False
        now = counter.log_prob(self.points[-NUM_REMEMBERED:]).cpu()
        # What other machines round otherwise is no change.
        return differ(now, torch.tensor(self._log_prob_then, dtype=torch.float64), 1e-3, 1e-5)

    def keep(self, counter: CountedTarget, x: Tensor, estimate: LogZEstimate) -> None:
        """Remember what a search has left: an estimate, and draws x, as many as there is room for.

        The last of these, `num_held_out`, are to be apart from the rest: no copies, no moves of the same points.
        """
        self.points.copy_(x)
        self.reference = estimate
        self._log_prob_then = counter.log_prob(self.points[-NUM_REMEMBERED:]).tolist()
        self.num_target_evaluations = counter.num_evaluations

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the tensors."""
        return {
            "reference": None if self.reference is None else asdict(self.reference),
            "num_target_evaluations": self.num_target_evaluations,
            "log_prob_then": self._log_prob_then,
            "is_warm": self.is_warm,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_extra_state` gave."""
        self.num_target_evaluations, self._log_prob_then = state["num_target_evaluations"], state.get("log_prob_then")
        self.is_warm = state.get("is_warm", False)
        self.reference = None if state.get("reference") is None else LogZEstimate(**state["reference"])
