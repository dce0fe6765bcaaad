"""Balance of chosen pairs of times: every squared balance loss is a quadratic form of one array."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.behaviours import Behaviour
from diffsampler.errors import InputError, check_count
from diffsampler.losses.base import TrajectoryLoss
from diffsampler.paths import Dynamics, Trajectory


def laplacian(weights: Tensor) -> Tensor:
    """The graph Laplacian L of pair weights, for which u^T L u = sum_{i<j} w_ij (u_i - u_j)^2.

    Arguments:
        weights: w_ij for i < j, with shape (T + 1, T + 1); the rest is not read.
    """
    upper = weights.triu(1)
    symmetric = upper + upper.T
    return symmetric.sum(1).diag() - symmetric


class PairBalance(TrajectoryLoss):
    """The mean of sum_{i<j} w_ij (u_i - u_j)^2 over trajectories, w normalised to sum to 1.

    Computed as one quadratic form u^T L u, in O(T^2 B) multiply-adds and O(T B) memory. A subclass says the weights.
    """

    uses_flow = True

    def __init__(self) -> None:
        super().__init__()
        self._laplacian: Tensor | None = None

    @abstractmethod
    def pair_weights(self, num_steps: int) -> Tensor:
        """w_ij for i < j, not normalised, float64, with shape (T + 1, T + 1); the rest is not read."""

    def check(self, dynamics: Dynamics, behaviour: Behaviour) -> None:
        super().check(dynamics, behaviour)
        self.weights(dynamics.grid.num_steps)

    def weights(self, num_steps: int) -> Tensor:
        """The pair weights w_ij, float64, with shape (T + 1, T + 1); zero unless i < j; they sum to 1."""
        weights = self.pair_weights(num_steps).triu(1)
        if not weights.isfinite().all() or (weights < 0).any() or not weights.any():
            raise InputError(f"{type(self).__name__} has no usable pair of times on a grid of {num_steps} steps.")
        return weights / weights.sum()

    def forward(self, trajectory: Trajectory) -> Tensor:
        return self.quadratic_form(trajectory.u)

    def quadratic_form(self, u: Tensor) -> Tensor:
        """The loss of any array u with shape (T + 1, B)."""
        # Centring changes nothing (L 1 = 0) but the rounding error: u can be large where its spread is small.
        u = u - u.mean(0)
        return (u * (self._laplacian_of(u) @ u)).sum(0).mean()

    def _laplacian_of(self, u: Tensor) -> Tensor:
        cached = self._laplacian
        if cached is None or cached.shape[0] != u.shape[0] or cached.device != u.device:
            self._laplacian = laplacian(self.weights(u.shape[0] - 1)).to(u.device)
        return self._laplacian


class LengthBalance(PairBalance):
    """All pairs of the given lengths, weighted alike; [1] is detailed balance.

    Arguments:
        lengths: numbers of steps between the two times of a pair; those longer than the grid do not count.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__()
        self.lengths = [check_count("lengths", length) for length in lengths]

    def pair_weights(self, num_steps: int) -> Tensor:
        weights = torch.zeros(num_steps + 1, num_steps + 1, dtype=torch.float64)
        for length in self.lengths:
            if length <= num_steps:
                weights.diagonal(length).fill_(1.0)
        return weights


class ChunkBalance(PairBalance):
    """The ends of consecutive chunks of a trajectory, the last of which may be shorter.

    References:
        Sequential Controlled Langevin Diffusions, Chen et al., 2025, arXiv:2412.07081 (sub-trajectories that end where
            particles are resampled).

    Arguments:
        length: of a chunk, in steps.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = check_count("length", length)

    def pair_weights(self, num_steps: int) -> Tensor:
        weights = torch.zeros(num_steps + 1, num_steps + 1, dtype=torch.float64)
        for start in range(0, num_steps, self.length):
            weights[start, min(start + self.length, num_steps)] = 1.0
        return weights


class MatrixBalance(PairBalance):
    """Any weights.

    Arguments:
        matrix: w_ij >= 0 for i < j, with shape (T + 1, T + 1) for the sampler's T; the rest is not read.
    """

    def __init__(self, matrix: Sequence[Sequence[float]] | Tensor) -> None:
        super().__init__()
        self.matrix = torch.as_tensor(matrix, dtype=torch.float64)

    def pair_weights(self, num_steps: int) -> Tensor:
        if self.matrix.shape != (num_steps + 1, num_steps + 1):
            raise InputError(
                f"matrix must have shape {(num_steps + 1, num_steps + 1)} for {num_steps} steps, got "
                f"{tuple(self.matrix.shape)}."
            )
        return self.matrix
