"""Sub-trajectory balance: every pair (i, j), weighted by its length."""

import torch
from torch import Tensor

from diffsampler.errors import check_positive
from diffsampler.losses.base import Loss
from diffsampler.trajectory import Trajectory

__all__ = ["SubTrajectoryBalance", "laplacian"]


def laplacian(weights: Tensor) -> Tensor:
    """The graph Laplacian L of pair weights, for which u^T L u = sum_{i<j} w_ij (u_i - u_j)^2.

    Arguments:
        weights: w_ij for i < j, with shape (T + 1, T + 1); the rest is not read.
    """
    upper = weights.triu(1)
    symmetric = upper + upper.T
    return symmetric.sum(1).diag() - symmetric


class SubTrajectoryBalance(Loss):
    """The mean of sum_{i<j} w_ij (u_i - u_j)^2 over trajectories, w_ij = lambda^(j - i) normalised to sum to 1.

    Computed as one quadratic form u^T L u, in O(T^2 B) multiply-adds and O(T B) memory. With a forward-looking flow
    and a Langevin drift this is DGFS.
    lambda = 1 weighs all pairs alike, large lambda approaches trajectory balance (at T = 100, lambda = 2 puts 99 % of
    the weight on lengths above 90), small lambda detailed balance.

    References:
        Learning GFlowNets from partial episodes for improved convergence and stability, Madan et al., 2023,
            arXiv:2209.12782, eq. 10.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679, eq. 15.

    Arguments:
        lamda: positive; spelt so because `lambda` is a word of Python.
    """

    uses_flow = True

    def __init__(self, lamda: float = 2.0) -> None:
        super().__init__()
        self.lamda = check_positive("lamda", lamda)
        self._laplacian: Tensor | None = None

    def forward(self, trajectory: Trajectory) -> Tensor:
        u = trajectory.u
        # Centring changes nothing (L 1 = 0) but the rounding error: u can be large where its spread is small.
        u = u - u.mean(0)
        return (u * (self._laplacian_of(u) @ u)).sum(0).mean()

    def weights(self, num_steps: int) -> Tensor:
        """The pair weights w_ij, float64, with shape (T + 1, T + 1); zero unless i < j."""
        index = torch.arange(num_steps + 1, dtype=torch.float64)
        length = index[None, :] - index[:, None]
        # Powers relative to the longest (or shortest) pair, so that none overflows.
        reference = num_steps if self.lamda > 1 else 1
        weights = torch.where(length > 0, self.lamda ** (length - reference).clamp(-num_steps, num_steps), 0.0)
        return weights / weights.sum()

    def _laplacian_of(self, u: Tensor) -> Tensor:
        cached = self._laplacian
        if cached is None or cached.shape[0] != u.shape[0] or cached.device != u.device:
            self._laplacian = laplacian(self.weights(u.shape[0] - 1)).to(u.device)
        return self._laplacian
