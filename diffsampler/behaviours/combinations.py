"""Behaviours made of behaviours."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffsampler.behaviours.base import Behaviour
from diffsampler.errors import InputError, check_instance, check_positive
from diffsampler.log_z.resampling import independent
from diffsampler.paths import Dynamics, Path


class _Combination(Behaviour):
    @abstractmethod
    def now(self, generator: torch.Generator, progress: float) -> tuple[Behaviour, float]:
        """Whose turn it is, and the progress in its eyes."""

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        behaviour, progress = self.now(generator, progress)
        return behaviour.paths(dynamics, n, generator, progress)

    def end_points(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor:
        behaviour, progress = self.now(generator, progress)
        return behaviour.end_points(dynamics, n, generator, progress)

    def __init__(self, behaviours: Sequence[Behaviour]) -> None:
        if not behaviours:
            raise InputError("behaviours must hold at least one behaviour, got none.")
        for behaviour in behaviours:
            check_instance("behaviours", behaviour, Behaviour, "OnPolicy()")
        self.behaviours = list(behaviours)
        self.on_policy = all(behaviour.on_policy for behaviour in self.behaviours)
        self.backward = all(behaviour.backward for behaviour in self.behaviours)

    def _one_each(self, name: str, values: list[float] | None) -> list[float]:
        """A positive number for each behaviour, by default 1."""
        values = [1.0] * len(self.behaviours) if values is None else values
        check_positive(name, values)
        if len(values) != len(self.behaviours):
            raise InputError(f"{name} must be {len(self.behaviours)} numbers, one a behaviour, got {len(values)}.")
        return values

    def check(self, dynamics: Dynamics) -> None:
        for behaviour in self.behaviours:
            behaviour.check(dynamics)

    def state_dict(self) -> dict[str, Any]:
        return {"behaviours": [behaviour.state_dict() for behaviour in self.behaviours]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for behaviour, part in zip(self.behaviours, state["behaviours"], strict=True):
            behaviour.load_state_dict(part)


class Alternation(_Combination):
    """One behaviour a step, in turns.

    Arguments:
        behaviours: in their order; name one twice to give it two turns.
    """

    def __init__(self, behaviours: list[Behaviour]) -> None:
        super().__init__(behaviours)
        self.turn = 0

    def now(self, generator: torch.Generator, progress: float) -> tuple[Behaviour, float]:
        behaviour, self.turn = self.behaviours[self.turn % len(self.behaviours)], self.turn + 1
        return behaviour, progress

    def state_dict(self) -> dict[str, Any]:
        return {"turn": self.turn, **super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.turn = state["turn"]
        super().load_state_dict(state)


class Mixture(_Combination):
    """One behaviour a step, drawn at random.

    Arguments:
        behaviours: to draw from.
        weights: in proportion to which; by default alike.
    """

    def __init__(self, behaviours: list[Behaviour], weights: list[float] | None = None) -> None:
        super().__init__(behaviours)
        self.log_weights = torch.tensor(self._one_each("weights", weights), dtype=torch.float64).log()

    def now(self, generator: torch.Generator, progress: float) -> tuple[Behaviour, float]:
        return self.behaviours[int(independent(self.log_weights.to(generator.device), 1, generator))], progress


class Succession(_Combination):
    """One behaviour after the other, each for a share of training; progress runs from 0 to 1 in each of them.

    Arguments:
        behaviours: in their order.
        shares: in proportion to which training is divided; by default alike.
    """

    def __init__(self, behaviours: list[Behaviour], shares: list[float] | None = None) -> None:
        super().__init__(behaviours)
        shares = self._one_each("shares", shares)
        self.ends = [sum(shares[: k + 1]) / sum(shares) for k in range(len(shares))]

    def stage(self, progress: float) -> tuple[int, float]:
        """Which behaviour's turn it is, and the progress within its stage."""
        stage = next((k for k, end in enumerate(self.ends[:-1]) if progress < end), len(self.ends) - 1)
        start = self.ends[stage - 1] if stage else 0.0
        return stage, (progress - start) / (self.ends[stage] - start)

    def now(self, generator: torch.Generator, progress: float) -> tuple[Behaviour, float]:
        stage, progress = self.stage(progress)
        return self.behaviours[stage], progress
