"""One loss after another."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour, Succession
from diffsampler.errors import InputError, check_instance
from diffsampler.losses.base import Loss
from diffsampler.trajectory import Trajectory

if TYPE_CHECKING:
    from diffsampler.sampler import Sampler

__all__ = ["Stages"]


class Stages(Loss):
    """Each loss in its stage of training, on the behaviour of that stage: both change together.

    It trains with `Succession`, which says when a stage ends, or on one behaviour that suits all losses; then stages
    are of equal length.

    Arguments:
        losses: in their order.
    """

    def __init__(self, losses: list[Loss]) -> None:
        super().__init__()
        if not losses:
            raise InputError("losses must hold at least one loss, got none.")
        for loss in losses:
            check_instance("losses", loss, Loss, "TrajectoryBalance()")
        self.losses = torch.nn.ModuleList(losses)
        self.uses_flow = any(loss.uses_flow for loss in losses)
        self.uses_log_z = any(loss.uses_log_z for loss in losses)
        self.min_batch_size = max(loss.min_batch_size for loss in losses)

    def forward(self, trajectory: Trajectory) -> Tensor:
        return self.losses[-1](trajectory)

    def step(
        self, sampler: "Sampler", behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        stage, progress = self._succession(behaviour).stage(progress)
        source = behaviour.behaviours[stage] if isinstance(behaviour, Succession) else behaviour
        return self.losses[stage].step(sampler, source, n, generator, progress)

    def adapt(self, sampler: "Sampler") -> None:
        for loss in self.losses:
            loss.adapt(sampler)

    def check(self, sampler: "Sampler", behaviour: Behaviour) -> None:
        succession = self._succession(behaviour)
        if len(succession.behaviours) != len(self.losses):
            raise InputError(
                f"losses must be {len(succession.behaviours)}, one for each behaviour of Succession, got "
                f"{len(self.losses)}."
            )
        for loss, source in zip(self.losses, succession.behaviours, strict=True):
            loss.check(sampler, source)

    def _succession(self, behaviour: Behaviour) -> Succession:
        if isinstance(behaviour, Succession):
            return behaviour
        return Succession([behaviour] * len(self.losses))
