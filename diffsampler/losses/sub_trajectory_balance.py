"""Sub-trajectory balance: every pair (i, j), weighted by its length."""

import torch
from torch import Tensor

from diffsampler.errors import check_positive
from diffsampler.losses.pair_balance import PairBalance


class SubTrajectoryBalance(PairBalance):
    """The mean of sum_{i<j} w_ij (u_i - u_j)^2 over trajectories, w_ij = lambda^(j - i) normalised to sum to 1.

    With a forward-looking flow and a Langevin control this is DGFS. lambda = 1 weighs all pairs alike, large lambda
    approaches trajectory balance (at T = 100, lambda = 2 puts 99 % of the weight on lengths above 90), small lambda
    detailed balance.

    References:
        Learning GFlowNets from partial episodes for improved convergence and stability, Madan et al., 2023,
            arXiv:2209.12782, eq. 10.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679, eq. 15.

    Arguments:
        lamda: positive; spelt so because `lambda` is a word of Python.
    """

    def __init__(self, lamda: float = 2.0) -> None:
        super().__init__()
        self.lamda = check_positive("lamda", lamda)

    def pair_weights(self, num_steps: int) -> Tensor:
        index = torch.arange(num_steps + 1, dtype=torch.float64)
        length = index[None, :] - index[:, None]
        # Powers relative to the longest (or shortest) pair, so that none overflows.
        reference = num_steps if self.lamda > 1 else 1
        return torch.where(length > 0, self.lamda ** (length - reference).clamp(-num_steps, num_steps), 0.0)
