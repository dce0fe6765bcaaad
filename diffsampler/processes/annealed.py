"""What processes along a path of densities share: the path, and learned step factors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffsampler.errors import check_positive
from diffsampler.priors import Prior
from diffsampler.processes.base import Process
from diffsampler.processes.knots import Annealing, interpolate
from diffsampler.spaces import Space, as_reals
from diffsampler.spaces.scales import to_scales

NUM_PIECES = 32


class AnnealedProcess(Process):
    """A process guided by the score of pi_t = prior^(1 - b_t) R^(b_t), with a learned b from 0 to 1.

    The target's score is clipped, as part of the model: weights stay exact.

    Arguments:
        space: of positions: R^D, or D.
        sigma: of the steps, one for all coordinates or one each; positive.
        prior: of states, or what makes it from the space of states.
        clip: bound on each entry of the target's score; positive.
        learnable: whether annealing and step factors are learned.
    """

    uses_score = True

    def __init__(
        self,
        space: Space | int,
        sigma: float | Sequence[float],
        prior: Prior | Callable[[Space], Prior],
        clip: float,
        learnable: bool,
    ) -> None:
        super().__init__(as_reals(type(self).__name__, space), prior)
        dim = self.position_prior.space.dim
        self.register_buffer("sigma", to_scales("sigma", sigma, dim), persistent=False)
        self.clip = check_positive("clip", clip)
        self.annealing = Annealing(NUM_PIECES, learnable)
        self.log_factor = nn.Parameter(torch.zeros(NUM_PIECES + 1, dim), learnable)

    @property
    def position_prior(self) -> Prior:
        """That of positions."""
        return self.prior

    def inverse_temperature(self, t: Tensor) -> Tensor:
        return self.annealing(t.unsqueeze(-1)).squeeze(-1)

    def annealed_score(self, t: Tensor, x: Tensor, score: Tensor) -> Tensor:
        """The score of pi_t at positions x with shape (*, D), from the target's there."""
        tamed = score.clamp(-self.clip, self.clip).nan_to_num(0.0)
        return torch.lerp(self.position_prior.score(x), tamed, self.annealing(t).to(x.dtype))

    def step_factor(self, s: Tensor, t: Tensor) -> Tensor:
        """The learned factor between s and t, 1 before training, with shape (D) or (T, 1, D)."""
        return interpolate(self.log_factor, 0.5 * (s + t)).exp()
