"""What a behaviour is."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from diffsampler.trajectory import Path

if TYPE_CHECKING:
    from diffsampler.sampler import Sampler

__all__ = ["Behaviour"]


class Behaviour(ABC):
    """A source of training paths.

    It is no nn.Module: what it holds is data, which no optimiser, EMA or DDP may touch.

    Attributes:
        on_policy: whether all paths are the sampler's own rollouts.
        backward: whether all paths are rolled back from given points.
    """

    on_policy: bool = False
    backward: bool = False

    @abstractmethod
    def paths(self, sampler: "Sampler", n: int, generator: torch.Generator, progress: float) -> Path:
        """n paths to train on.

        Arguments:
            sampler: the sampler in training.
            n: the number B of paths.
            generator: the source of all noise.
            progress: the fraction of training done, in [0, 1].
        """

    def check(self, sampler: "Sampler") -> None:
        """Raise InputError, with the fix, if there are no paths for this sampler to be had; called before training."""
        del sampler

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers that a checkpoint keeps."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        del state
