"""Underdamped Langevin dynamics along a path of densities, both directions controlled: UDB."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffsampler.density import Density, DerivedDensity
from diffsampler.errors import check_positive
from diffsampler.parts import make_part
from diffsampler.priors import GaussianPrior, MomentumPrior, Prior, log_momentum
from diffsampler.processes.annealed import AnnealedProcess
from diffsampler.spaces import Euclidean, Space, as_reals
from diffsampler.spaces.kernels import MomentumKernel, noise_like
from diffsampler.target import Target


class DensityWithMomentum(DerivedDensity):
    """R(x) N(p; 0, I), a density of states (x, p) with shape (*, 2 D); the same log Z."""

    def __init__(self, inner: Density | Target) -> None:
        super().__init__(inner, 2 * inner.dim)

    def to_user(self, x: Tensor) -> tuple[Tensor, Tensor]:
        position, momentum = x.chunk(2, -1)
        position, log_volume = self.inner.to_user(position)
        return position, log_volume + log_momentum(momentum)

    def value(self, x: Tensor) -> Tensor:
        position, momentum = x.chunk(2, -1)
        return self.inner.value(position) + log_momentum(momentum)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        position, momentum = x.chunk(2, -1)
        log_prob, score = self.inner.value_and_score(position)
        return log_prob + log_momentum(momentum), torch.cat([score.to(x.dtype), -momentum], -1)


class Underdamped(AnnealedProcess):
    """States (x, p): a kick, friction and noise, a kick, then a drift of the position.

    With h = t - s, a = exp(-friction h), f = grad log pi(x) for pi = prior^(1 - b) R^b at the middle of the step:

        p' ~ N(a (p + sigma h f / 2) + sigma h f / 2 + (h (1 - a^2))^(1/2) u, 1 - a^2),    x' = x + sigma h p'

    and backwards, with the same f,

        x = x' - sigma h p',    p ~ N(a (p' - sigma h f / 2) - sigma h f / 2 - (h (1 - a^2))^(1/2) v, 1 - a^2)

    Kick, friction, kick, drift is the splitting ABOBA seen from the middle of its drifts: one score a step, and weights
    whose variance falls with the square of the step (that of overdamped moves falls with the step). Friction, annealing
    b, prior and a factor on the kicks (each coordinate, over time) are learned; u and v are two networks on (x, p).
    sigma is not: it moves positions without noise of their own, and densities of given states say nothing of that.

    References:
        Underdamped Diffusion Bridges with Applications to Sampling, Blessing et al., 2025, arXiv:2503.01006.
        Rational Construction of Stochastic Numerical Methods for Molecular Sampling, Leimkuhler & Matthews, 2013,
            arXiv:1203.5428 (splittings).

    Arguments:
        space: of positions: R^D, or D.
        sigma: how far positions move over unit time: of the target's scale, times a few. One for all coordinates or one
            each; positive.
        friction: before training; positive.
        prior: of positions; by default a learnable `GaussianPrior`.
        clip: bound on each entry of the target's score; positive.
        learnable: whether friction, kicks and annealing are learned.
    """

    learns_backward = True
    scores_destination = True

    def __init__(
        self,
        space: Space | int,
        sigma: float | Sequence[float] = 5.0,
        friction: float = 5.0,
        prior: Prior | Callable[[Space], Prior] = GaussianPrior,
        clip: float = 1000.0,
        learnable: bool = True,
    ) -> None:
        positions = make_part("prior", prior, Prior, as_reals(type(self).__name__, space))
        super().__init__(Euclidean(2 * positions.space.dim), sigma, MomentumPrior(positions), clip, learnable)
        self.position_dim = positions.space.dim
        self.log_friction = nn.Parameter(torch.tensor(math.log(check_positive("friction", friction))), learnable)

    @property
    def position_prior(self) -> Prior:
        return self.prior.positions

    def extend(self, density: Density) -> Density:
        return DensityWithMomentum(density)

    def position(self, state: Tensor) -> Tensor:
        return state[..., : self.position_dim]

    def lift(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.cat([x, noise_like(x, generator)], -1)

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> MomentumKernel:
        position, momentum = x.chunk(2, -1)
        decay, std, step = self._coefficients(s, t)
        kick = self._kick(s, t, position, step, score)
        mean = decay.to(x.dtype) * (momentum + kick) + kick + self._push(s, t, std, u)
        return MomentumKernel(mean, std, position, None, step)

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> MomentumKernel:
        position, momentum = y.chunk(2, -1)
        decay, std, step = self._coefficients(s, t)
        kick = self._kick(s, t, self.score_point(s, t, y).chunk(2, -1)[0], step, score)
        mean = decay.to(y.dtype) * (momentum - kick) - kick - self._push(s, t, std, v)
        return MomentumKernel(mean, std, position, momentum, -step)

    def score_point(self, s: Tensor, t: Tensor, y: Tensor) -> Tensor:
        position, momentum = y.chunk(2, -1)
        *_, step = self._coefficients(s, t)
        return torch.cat([position - step.to(y.dtype) * momentum, momentum], -1)

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return self.prior.log_prob(x)

    def _coefficients(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The decay a, the standard deviation of the noise, and the length sigma h of the drift."""
        log_decay = -self.log_friction.double().exp() * (t - s)
        return log_decay.exp(), (-torch.expm1(2 * log_decay)).sqrt(), self.sigma * (t - s)

    def _kick(self, s: Tensor, t: Tensor, position: Tensor, step: Tensor, score: Tensor) -> Tensor:
        strength = (0.5 * step * self.step_factor(s, t)).to(position.dtype)
        return strength * self.annealed_score(0.5 * (s + t), position, self.position(score))

    def _push(self, s: Tensor, t: Tensor, std: Tensor, control: Tensor) -> Tensor:
        return (std * (t - s).sqrt()).to(control.dtype) * control[..., self.position_dim :]
