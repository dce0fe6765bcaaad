"""What a loss is."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError
from diffsampler.trajectory import Trajectory

if TYPE_CHECKING:
    from diffsampler.sampler import Sampler

__all__ = ["Loss"]


class Loss(nn.Module, ABC):
    """A scalar function of a `Trajectory`.

    Attributes:
        uses_flow: whether `forward` reads `trajectory.u` or `trajectory.log_flow`.
        uses_log_z: whether the loss trains the sampler's `log_z`.
        on_policy: whether the loss is right for the sampler's own rollouts only.
        backward: whether the loss is right for paths rolled back from given points only.
        min_batch_size: the trajectories that a step needs at least: 2 where they are compared with each other.
    """

    uses_flow: bool = False
    uses_log_z: bool = True
    on_policy: bool = False
    backward: bool = False
    min_batch_size: int = 1

    @abstractmethod
    def forward(self, trajectory: Trajectory) -> Tensor:
        """The loss, with shape (), averaged over the batch."""

    def step(
        self, sampler: "Sampler", behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        """The loss of one training step: paths from the behaviour, densities from the sampler, then `forward`."""
        path = behaviour.paths(sampler, n, generator, progress)
        return self(sampler.evaluate(path, with_flow=self.uses_flow))

    def adapt(self, sampler: "Sampler") -> None:
        """Make what depends on the sampler; called once before training. Most losses need nothing."""

    def check_batch_size(self, batch_size: int) -> None:
        """Raise InputError if a step of so many trajectories says nothing."""
        if batch_size < self.min_batch_size:
            raise InputError(
                f"batch_size must be at least {self.min_batch_size} for loss {type(self).__name__}, which compares the "
                f"trajectories of a batch, got {batch_size}."
            )

    def check(self, sampler: "Sampler", behaviour: Behaviour) -> None:
        """Raise InputError, with the fix, if this loss cannot train this sampler on these paths."""
        name, source = type(self).__name__, type(behaviour).__name__
        if self.uses_flow and sampler.flow is None:
            raise InputError(
                f"loss {name} needs a flow network, but the sampler has flow=None. "
                "Pass flow=ForwardLookingFlow, or use TrajectoryBalance or LogVariance."
            )
        if self.on_policy and not behaviour.on_policy:
            raise InputError(
                f"loss {name} needs the sampler's own rollouts, but behaviour {source} brings others. "
                "Use OnPolicy, or a loss that takes any path, such as TrajectoryBalance."
            )
        if self.backward and not behaviour.backward:
            raise InputError(
                f"loss {name} needs paths rolled back from points of the target, but behaviour {source} rolls "
                "out. Use ExpertSamples, or a loss that takes any path, such as TrajectoryBalance."
            )
