"""Time grids 0 = t_0 < t_1 < ... < t_T = 1, in float64, with both ends set exactly.

A grid by repeated addition can miss its end by a rounding error and a whole step; none here adds.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count, check_positive


class Grid(ABC):
    """A partition of [0, 1] into `num_steps` steps.

    Arguments:
        num_steps: the number T of steps, at least 1.
    """

    def __init__(self, num_steps: int = 100) -> None:
        self.num_steps = check_count("num_steps", num_steps)

    @abstractmethod
    def interior(self, generator: torch.Generator | None = None) -> Tensor:
        """The increasing times t_1..t_{T-1} in (0, 1), float64, with shape (T - 1)."""

    def times(self, generator: torch.Generator | None = None) -> Tensor:
        """The times t_0..t_T, float64 on the CPU, with shape (T + 1)."""
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")
        times = torch.cat([ends[:1], self.interior(generator).cpu(), ends[1:]])
        if not (times.diff() > 0).all():
            raise InputError(
                f"{type(self).__name__} has steps too short for float64: use fewer steps, or a gentler power or bound."
            )
        return times

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_steps={self.num_steps})"


def _uniform_interior(num_steps: int) -> Tensor:
    return torch.arange(1, num_steps, dtype=torch.float64, device="cpu") / num_steps


class UniformGrid(Grid):
    """t_k = k / T."""

    def interior(self, generator: torch.Generator | None = None) -> Tensor:
        return _uniform_interior(self.num_steps)


class PowerGrid(Grid):
    """t_k = 1 - (1 - k / T)^power: above 1, the steps shrink towards the target; below 1, towards the prior.

    Arguments:
        num_steps: the number T of steps.
        power: positive; 1 is the uniform grid.
    """

    def __init__(self, num_steps: int = 100, power: float = 2.0) -> None:
        super().__init__(num_steps)
        self.power = check_positive("power", power)

    def interior(self, generator: torch.Generator | None = None) -> Tensor:
        return 1 - (1 - _uniform_interior(self.num_steps)) ** self.power


class GeometricGrid(Grid):
    """1 - t_k = last^(k / (T - 1)) for k < T: each step is shorter than the one before by the same factor.

    What is narrow appears in the last part of a process: of Lennard-Jones cores nearly all of the work of sampling is
    at noise between a twentieth and a half of the particles' distance.

    Arguments:
        num_steps: the number T of steps, at least 2.
        last: the length of the last step, in (0, 1).
    """

    def __init__(self, num_steps: int = 100, last: float = 0.01) -> None:
        super().__init__(check_count("num_steps", num_steps, minimum=2))
        if not 0 < last < 1:
            raise InputError(f"last must be above 0 and below 1, got {last!r}.")
        self.last = last

    def interior(self, generator: torch.Generator | None = None) -> Tensor:
        share = torch.arange(1, self.num_steps, dtype=torch.float64, device="cpu") / (self.num_steps - 1)
        return 1 - self.last**share


class LogSNRGrid(Grid):
    """Uniform in log(t / (1 - t)), the log signal-to-noise ratio of a Brownian bridge, at interior times
    strictly between -bound and bound.

    Arguments:
        num_steps: the number T of steps.
        bound: positive; the larger, the finer both ends.
    """

    def __init__(self, num_steps: int = 100, bound: float = 5.0) -> None:
        super().__init__(num_steps)
        self.bound = check_positive("bound", bound)

    def interior(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.sigmoid(self.bound * (2 * _uniform_interior(self.num_steps) - 1))


class JitteredGrid(Grid):
    """The uniform grid with each interior time moved by up to `jitter / 2` of a step, afresh for every rollout.

    Arguments:
        num_steps: the number T of steps.
        jitter: at least 0 and below 1, so that times stay in order.
    """

    def __init__(self, num_steps: int = 100, jitter: float = 0.5) -> None:
        super().__init__(num_steps)
        if not 0 <= jitter < 1:
            raise InputError(f"jitter must be at least 0 and below 1, got {jitter!r}.")
        self.jitter = jitter

    def interior(self, generator: torch.Generator | None = None) -> Tensor:
        device = "cpu" if generator is None else generator.device
        offset = torch.rand(self.num_steps - 1, generator=generator, dtype=torch.float64, device=device).cpu() - 0.5
        return _uniform_interior(self.num_steps) + self.jitter * offset / self.num_steps
