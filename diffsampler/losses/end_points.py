"""Losses of single transitions to end points: no path is walked, one call of the network for each."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_count
from diffsampler.losses.base import Objective
from diffsampler.paths import Dynamics, kernel_at


@dataclass(frozen=True)
class Transitions:
    """Where n random steps start, and where their paths end.

    Attributes:
        step: which they are, in [0, T), with shape (n).
        row: which of the end points each belongs to, with shape (n).
        x: their starts, with shape (n, D).
        end: their end points, on angles in the mean over all turns, with shape (n, D).
        signal, std: x = signal end + std noise; float64, with shapes (n, 1), and (n, 1) or (n, D).
        guess: of the end point given x, by the control as it is; with shape (n, D).
    """

    step: Tensor
    row: Tensor
    x: Tensor
    end: Tensor
    signal: Tensor
    std: Tensor
    guess: Tensor


class EndPointRegression(Objective):
    """The mean of each step regressed on that of the step to an end point, and its width on what is left.

    A subclass says what is known of the end point. Transitions are at random times, each drawn by P_B at once.

    Arguments:
        num_transitions: of each training step; drawn to as many end points as its batch has trajectories.
    """

    uses_log_z = False

    def __init__(self, num_transitions: int = 1024) -> None:
        super().__init__()
        self.num_transitions = check_count("num_transitions", num_transitions)

    @abstractmethod
    def estimate(self, dynamics: Dynamics, ends: Tensor, transitions: Transitions) -> Tensor:
        """Something of the end point's mean given x, with shape (n, D), without gradient; not finite where not known.

        Arguments:
            dynamics: the sampler in training.
            ends: the end points, with shape (B, D).
            transitions: n of them.
        """

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        super().check(dynamics, behaviour)
        process = dynamics.policy.process
        if process.marginal(torch.full((1,), 0.5, dtype=torch.float64, device=dynamics.policy.device)) is None:
            raise InputError(
                f"loss {type(self).__name__} needs a process whose backward kernel is a known Gaussian of the end "
                f"point, which {type(process).__name__} has not. Use VariancePreserving, PinnedBrownian, Torus or "
                "MaximumLikelihood."
            )

    def step(
        self, dynamics: Dynamics, behaviour: Behaviour, n: int, generator: torch.Generator, progress: float
    ) -> Tensor:
        grid, process = dynamics.times(generator), dynamics.policy.process
        ends = behaviour.end_points(dynamics, n, generator, progress)
        is_known = ends.isfinite().all(-1, keepdim=True)
        ends = torch.where(is_known, ends, 0.0)
        draws = {"generator": generator, "device": ends.device}
        step = torch.randint(len(grid) - 1, (self.num_transitions,), **draws)
        row = torch.randint(n, (self.num_transitions,), **draws)
        times, next_times = grid[step, None], grid[step + 1, None]
        (signal, std), (next_signal, next_std) = process.marginal(times), process.marginal(next_times)
        y = process.space.kernel(next_signal.to(ends.dtype) * ends[row], next_std).rsample(generator)
        x = process.backward_kernel(times, next_times, y).rsample(generator)
        kernel = kernel_at(dynamics, grid, step, x)
        mean, end = kernel.mean.squeeze(1), process.space.seen_from(x, ends[row], std)
        back = process.backward_kernel(times, next_times, torch.ones_like(x))
        # The mean of y given x and the end point, as y is given the end point and x given y.
        decay, lost = back.mean.double(), back.std.square()
        precision = decay.square() * next_std.square() + lost
        is_start = precision == 0  # a Dirac, which says nothing of where y is
        of_x = torch.where(is_start, 0.0, decay * next_std.square() / precision).to(x.dtype)
        of_end = torch.where(is_start, next_signal, next_signal * lost / precision).to(x.dtype)
        guess = (mean.detach() - of_x * x) / of_end
        with torch.no_grad():
            end = self.estimate(dynamics, ends, Transitions(step, row, x, end, signal, std, guess))
            is_known = is_known[row] & end.isfinite().all(-1, keepdim=True)
            end = torch.where(is_known, end, guess)
        std = kernel.std.detach().squeeze(1).to(x.dtype)
        # What no noise moves, a context, is where it was.
        error = (of_x * x + of_end * end - mean) / torch.where(std > 0, std, 1.0)
        width = kernel.around(kernel.mean.detach()).log_prob(y.unsqueeze(1)).squeeze(1)
        losses = torch.where(is_known.squeeze(-1), 0.5 * error.square().sum(-1) - width, 0.0)
        return (len(grid) - 1) * losses.mean().double()
