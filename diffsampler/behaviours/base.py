"""What a behaviour is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.paths import Dynamics, Path


class Stateful:
    """What changes during training, and is kept."""

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers that a checkpoint keeps."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        del state


class Behaviour(Stateful, ABC):
    """A source of training paths.

    It is no nn.Module: what it holds is data, which no optimiser, EMA or DDP may touch.

    Attributes:
        on_policy: whether all paths are the sampler's own rollouts.
        backward: whether all paths are those of the target: rolled back from given points, or weighed.
    """

    on_policy: bool = False
    backward: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # A user's own may return anything, and every loss calls `paths`.
        super().__init_subclass__(**kwargs)
        if "paths" in vars(cls):
            cls.paths = _checked(cls.paths)
        if "end_points" in vars(cls):
            cls.end_points = _checked_ends(cls.end_points)

    @abstractmethod
    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        """n paths to train on.

        Arguments:
            dynamics: the sampler in training, as it walks.
            n: the number B of paths.
            generator: the source of all noise.
            progress: the fraction of training done, in [0, 1].
        """

    def end_points(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor:
        """Where n such paths end, with shape (n, D): all that some losses ask for. Arguments as in `paths`."""
        return self.paths(dynamics, n, generator, progress).x[-1]

    def check(self, dynamics: Dynamics) -> None:
        """Raise InputError, with the fix, if there are no paths for this sampler to be had; called before training."""
        del dynamics


def _checked(paths: Callable[..., Path]) -> Callable[..., Path]:
    """The same function, which raises InputError unless it returns a path of n trajectories of this sampler."""

    @wraps(paths)
    def checked(self: Behaviour, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        path = paths(self, dynamics, n, generator, progress)
        what = tuple(path.x.shape) if isinstance(path, Path) else type(path).__name__
        if not isinstance(path, Path) or path.x.shape[1:] != (n, dynamics.policy.dim):
            raise InputError(
                f"behaviour {type(self).__name__}.paths must return a Path of states with shape "
                f"(T + 1, {n}, {dynamics.policy.dim}), got {what}."
            )
        return path

    return checked


def _checked_ends(end_points: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same of end points."""

    @wraps(end_points)
    def checked(self: Behaviour, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor:
        x, policy = end_points(self, dynamics, n, generator, progress), dynamics.policy
        if not isinstance(x, Tensor) or x.shape != (n, policy.dim) or x.dtype != policy.dtype:
            what = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"behaviour {type(self).__name__}.end_points must return states with shape ({n}, {policy.dim}) of "
                f"{policy.dtype}, got {what}."
            )
        return x

    return checked
