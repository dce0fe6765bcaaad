"""What a loss is."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor, nn

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
    """

    uses_flow: bool = False
    uses_log_z: bool = True

    @abstractmethod
    def forward(self, trajectory: Trajectory) -> Tensor:
        """The loss, with shape (), averaged over the batch."""

    def check(self, sampler: "Sampler") -> None:
        """Raise InputError, with the fix, if this loss cannot train this sampler."""
        if self.uses_flow and sampler.flow is None:
            raise InputError(
                f"loss {type(self).__name__} needs a flow network, but the sampler has flow=None. "
                "Pass flow=ForwardLookingFlow, or use TrajectoryBalance or LogVariance."
            )
