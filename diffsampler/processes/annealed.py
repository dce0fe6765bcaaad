"""What processes along a path of densities share: the path, and learned step factors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffsampler.errors import check_positive
from diffsampler.priors import GaussianPrior, Prior, is_adapted
from diffsampler.processes.base import Process
from diffsampler.processes.knots import Annealing, interpolate
from diffsampler.processes.scales import check_entries, to_scales

__all__ = ["AnnealedProcess"]

NUM_PIECES = 32


class AnnealedProcess(Process):
    """A process guided by the score of pi_t = prior^(1 - b_t) R^(b_t), with a learned b from 0 to 1.

    The target's score is clipped, as part of the model: weights stay exact.

    Arguments:
        sigma: of the steps, one for all coordinates or one each; positive.
        prior: of positions; by default a learnable `GaussianPrior()`.
        clip: bound on each entry of the target's score; positive.
        learnable: whether annealing and step factors are learned.
    """

    uses_score = True

    def __init__(self, sigma: float | Sequence[float], prior: Prior | None, clip: float, learnable: bool) -> None:
        super().__init__(GaussianPrior() if prior is None else prior)
        self.register_buffer("sigma", to_scales("sigma", sigma), persistent=False)
        self.clip = check_positive("clip", clip)
        self.annealing = Annealing(NUM_PIECES, learnable)
        self.learnable = learnable

    def adapt(self, dim: int) -> None:
        super().adapt(dim)
        check_entries(self.sigma, dim)
        if not is_adapted(self, (NUM_PIECES + 1, dim)):
            self.log_factor = nn.Parameter(torch.zeros(NUM_PIECES + 1, dim), self.learnable)

    def inverse_temperature(self, t: Tensor) -> Tensor:
        return self.annealing(t.unsqueeze(-1)).squeeze(-1)

    def annealed_score(self, t: Tensor, x: Tensor, score: Tensor) -> Tensor:
        """The score of pi_t at positions x with shape (*, D), from the target's there."""
        tamed = score.clamp(-self.clip, self.clip).nan_to_num(0.0)
        return torch.lerp(self.prior.score(x), tamed, self.annealing(t).to(x.dtype))

    def step_factor(self, s: Tensor, t: Tensor) -> Tensor:
        """The learned factor between s and t, 1 before training, with shape (D) or (T, 1, D)."""
        return interpolate(self.log_factor, 0.5 * (s + t)).exp()
