"""Replay: end points found earlier, walked back again by the current P_B."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffsampler.behaviours.base import Behaviour
from diffsampler.behaviours.buffer import PointBuffer
from diffsampler.behaviours.local_search import LocalSearch
from diffsampler.behaviours.priorities import Priority, UniformPriority
from diffsampler.behaviours.rollouts import OnPolicy
from diffsampler.density import Density
from diffsampler.errors import InputError, check_count
from diffsampler.paths import Dynamics, Path, evaluate, rollback
from diffsampler.repeatable import differ

NUM_ASKED = 16


class Replay(Behaviour):
    """In turns: paths of another behaviour, whose end points are kept, and paths rolled back from points kept.

    With `search`, the end points of every `search_every`-th turn of fresh paths are improved, and it is the improved
    ones that replay draws from. The buffer is on the device of training and in every checkpoint. It is emptied where
    its points are of another density than is trained on now: before a warm start, of other data, of another run's
    state, or in coordinates that have been found anew since.

    References:
        Improved off-policy training of diffusion samplers, Sendera et al., 2024, arXiv:2402.05098, section 4.

    Arguments:
        source: the behaviour that finds points; by default `OnPolicy()`.
        capacity: the largest number of points kept.
        priority: which points are drawn; by default all alike.
        replays: replays after each turn of fresh paths.
        search: moves end points to better ones before they are kept.
        search_every: with `search`, how many turns of fresh paths pass between searches.
    """

    def __init__(
        self,
        source: Behaviour | None = None,
        capacity: int = 100_000,
        priority: Priority | None = None,
        replays: int = 1,
        search: LocalSearch | None = None,
        search_every: int = 50,
    ) -> None:
        self.source = OnPolicy() if source is None else source
        self.buffer = PointBuffer(capacity)
        self.priority = UniformPriority() if priority is None else priority
        self.replays = check_count("replays", replays)
        if search is not None and self.priority.uses_weight:
            raise InputError(
                f"priority {type(self.priority).__name__} needs the weights of trajectories, which points moved by a "
                "search do not have. Use RewardPriority, RankPriority or UniformPriority, or search=None."
            )
        self.search = search
        self.search_every = check_count("search_every", search_every)
        self.turn = 0
        self._state: dict[str, Any] = {}
        self._density: Density | None = None  # whose points are kept
        self._is_current = False

    def check(self, dynamics: Dynamics) -> None:
        self.source.check(dynamics)
        self._is_current = False  # data may have changed in their place, and coordinates

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        kept = self._kept_points(dynamics, n, generator)
        if kept is None:
            return self._fresh_paths(dynamics, n, generator, progress)
        return rollback(dynamics, kept, generator)

    def end_points(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor:
        kept = self._kept_points(dynamics, n, generator)
        return self._fresh_paths(dynamics, n, generator, progress).x[-1] if kept is None else kept

    def _kept_points(self, dynamics: Dynamics, n: int, generator: torch.Generator) -> Tensor | None:
        """n of the buffer, with shape (n, D); None if it is the turn of fresh paths."""
        self._empty_of_others(dynamics)
        fresh, self.turn = self.turn % (self.replays + 1) == 0, self.turn + 1
        if fresh or not len(self.buffer):
            return None
        return self.buffer.x[self.buffer.sample(n, self.priority, generator)]

    def _empty_of_others(self, dynamics: Dynamics) -> None:
        """Forget points of another density, and of this one if it gives other values now than it did then."""
        density, kept = dynamics.target.density, self.buffer
        if self._state:
            kept.load_state_dict(self._state, dynamics.policy.device)
            self._state = {}
            # Not counted: a run that goes on comes to the counts of one that was never cut off.
            with dynamics.target.counting_apart():
                is_outdated = len(kept) > 0 and _is_outdated(kept, dynamics)
        else:
            is_other = density is not self._density
            is_outdated = len(kept) > 0 and (is_other or (not self._is_current and _is_outdated(kept, dynamics)))
        if is_outdated:
            kept.clear()
            self.turn = 0
        self._density, self._is_current = density, True

    def _fresh_paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        path = self.source.paths(dynamics, n, generator, progress)
        if path.log_prob is None:
            path = replace(path, log_prob=dynamics.target.log_prob(path.x[-1:]))
        self._keep(dynamics, path, generator)
        return path

    def _keep(self, dynamics: Dynamics, path: Path, generator: torch.Generator) -> None:
        x, log_prob, log_weight = path.x[-1], path.log_prob[-1], None
        if self.search is not None:
            usable = log_prob.isfinite()
            if (self.turn - 1) // (self.replays + 1) % self.search_every or not usable.any():
                return
            x, log_prob = self.search.improve(dynamics, x[usable], log_prob[usable], generator)
        elif self.priority.uses_weight:
            with torch.no_grad():
                log_weight = evaluate(dynamics, path, with_flow=False).log_weight
        self.buffer.add(x, log_prob, log_weight)

    def state_dict(self) -> dict[str, Any]:
        return {
            "turn": self.turn,
            "buffer": self._state or self.buffer.state_dict(),
            "source": self.source.state_dict(),
            "search": {} if self.search is None else self.search.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.turn = state["turn"]
        # The device is known when the sampler is.
        self._state = state["buffer"]
        self.buffer.clear()
        self.source.load_state_dict(state["source"])
        if self.search is not None and state["search"]:
            self.search.load_state_dict(state["search"])


@torch.no_grad()
def _is_outdated(kept: PointBuffer, dynamics: Dynamics) -> bool:
    """Whether some of the points kept have another density now, or none."""
    if kept.x.shape[-1] != dynamics.target.dim:
        return True
    some = slice(None, None, -(-len(kept) // NUM_ASKED))
    now = dynamics.target.log_prob(kept.x[some]).to(kept.log_prob)
    return differ(now, kept.log_prob[some], 1e-3, 1e-5)
