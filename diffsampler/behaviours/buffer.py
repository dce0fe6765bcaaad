"""A ring of end points: the newest ones push out the oldest."""

from typing import Any

import torch
from torch import Tensor

from diffsampler.behaviours.priorities import Priority
from diffsampler.errors import check_count
from diffsampler.log_z.resampling import independent

COLUMNS = ("x", "log_prob", "log_weight")


class PointBuffer:
    """Points with log R and the log-weight of the trajectory that found them, on the device that they come from.

    Points whose log R is not finite are left out.

    Arguments:
        capacity: the largest number of points.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = check_count("capacity", capacity)
        self.clear()

    def clear(self) -> None:
        """Forget all points."""
        self._columns: list[Tensor] | None = None
        self._next = self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def x(self) -> Tensor:
        """With shape (n, D)."""
        return self._columns[0][: self._size]

    @property
    def log_prob(self) -> Tensor:
        """With shape (n)."""
        return self._columns[1][: self._size]

    @property
    def log_weight(self) -> Tensor:
        """With shape (n)."""
        return self._columns[2][: self._size]

    def add(self, x: Tensor, log_prob: Tensor, log_weight: Tensor | None = None) -> None:
        """Add points with shape (n, D); where no weight is known it counts as 1."""
        log_weight = torch.zeros_like(log_prob) if log_weight is None else log_weight.to(log_prob)
        usable = log_prob.isfinite() & log_weight.isfinite()
        rows = [column[usable][-self.capacity :] for column in (x, log_prob, log_weight)]
        n = len(rows[0])
        if self._columns is None:
            self._columns = [row.new_empty(self.capacity, *row.shape[1:]) for row in rows]
        where = (self._next + torch.arange(n, device=x.device)) % self.capacity
        for column, row in zip(self._columns, rows, strict=True):
            column[where] = row
        self._next = (self._next + n) % self.capacity
        self._size = min(self._size + n, self.capacity)

    def sample(self, n: int, priority: Priority, generator: torch.Generator | None = None) -> Tensor:
        """The places of n points, drawn with replacement, with shape (n)."""
        return independent(priority.log_priority(self.log_prob, self.log_weight), n, generator)

    def state_dict(self) -> dict[str, Any]:
        """The points in their places, and the place of the next one."""
        if self._columns is None:
            return {}
        # Copies: a view would take the whole allocation into the checkpoint.
        return {"next": self._next, **{name: getattr(self, name).cpu().clone() for name in COLUMNS}}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Take back what `state_dict` gave, of a buffer of any capacity."""
        self.clear()
        if not state:
            return
        # Densities are kept in float64, in which older checkpoints may not have them.
        rows = [state["x"].to(device), *(state[name].to(device, torch.float64) for name in COLUMNS[1:])]
        if len(rows[0]) == self.capacity:
            self.add(*rows)
            self._next = state["next"]
        else:
            # Oldest first, so that the newest are kept and the oldest go next.
            self.add(*(row.roll(-state["next"], 0) for row in rows))
