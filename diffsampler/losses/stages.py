"""One loss after another."""

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour, Succession
from diffsampler.errors import InputError, check_instance
from diffsampler.losses.base import Objective
from diffsampler.paths import Dynamics


class Stages(Objective):
    """Each loss in its stage of training, on the behaviour of that stage: both change together.

    It trains with `Succession`, which says when a stage ends, or on one behaviour that suits all losses; then stages
    are of equal length.

    Arguments:
        losses: in their order.
    """

    def __init__(self, losses: list[Objective]) -> None:
        super().__init__()
        if not losses:
            raise InputError("losses must hold at least one loss, got none.")
        for loss in losses:
            check_instance("losses", loss, Objective, "TrajectoryBalance()")
        self.losses = torch.nn.ModuleList(losses)
        self.uses_flow = any(loss.uses_flow for loss in losses)
        self.uses_log_z = any(loss.uses_log_z for loss in losses)
        self.min_batch_size = max(loss.min_batch_size for loss in losses)

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        stage, progress = self._succession(behaviour).stage(progress)
        source = behaviour.behaviours[stage] if isinstance(behaviour, Succession) else behaviour
        return self.losses[stage].step(dynamics, source, n, generator, progress)

    def adapt(self, dynamics: Dynamics) -> None:
        for loss in self.losses:
            loss.adapt(dynamics)

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        succession = self._succession(behaviour)
        if len(succession.behaviours) != len(self.losses):
            raise InputError(
                f"losses must be {len(succession.behaviours)}, one for each behaviour of Succession, got "
                f"{len(self.losses)}."
            )
        for loss, source in zip(self.losses, succession.behaviours, strict=True):
            loss.check(dynamics, source)

    def _succession(self, behaviour: Behaviour) -> Succession:
        if isinstance(behaviour, Succession):
            return behaviour
        return Succession([behaviour] * len(self.losses))
