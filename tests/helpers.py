"""The families under test, and analytic parts that serve as oracles.

A new member of a family is one entry of its list here: batteries and combinations run over the lists.
"""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn

from diffsampler import FunctionTarget, Sampler, Target
from diffsampler.behaviours import (
    Alternation,
    BackAndForth,
    Behaviour,
    ExpertSamples,
    Exploration,
    ImportancePriority,
    MarkovChainSearch,
    Mixture,
    OnPolicy,
    RankPriority,
    Replay,
    SequentialMonteCarlo,
    WeightedPaths,
)
from diffsampler.losses import (
    DetailedBalance,
    LengthBalance,
    LogVariance,
    MaximumLikelihood,
    Objective,
    PathwiseReverseKL,
    ScoreFunctionReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
)
from diffsampler.networks import (
    Control,
    CoordinatewiseControl,
    ForwardLookingFlow,
    FourierFlow,
    FourierMLP,
    GaussianBridgeMLP,
    LangevinControl,
    LearnedVariance,
    PreconditionedMLP,
    StateFlow,
)
from diffsampler.paths import Trajectory
from diffsampler.priors import GaussianMixturePrior, GaussianPrior, Prior
from diffsampler.processes import (
    AnnealedLangevin,
    Bridge,
    LinearSchedule,
    PinnedBrownian,
    Process,
    ProductProcess,
    Torus,
    Underdamped,
    VarianceExploding,
    VariancePreserving,
)
from diffsampler.processes.grids import GeometricGrid, Grid, JitteredGrid, LogSNRGrid, PowerGrid, UniformGrid
from diffsampler.spaces import Circle, Euclidean, Product
from targets import Gaussian, GaussianMixture

# Two-sided normal tail beyond 4.5 standard errors: 7e-6 for each figure, below 1e-4 for the dozen of one test.
Z_BOUND = 4.5


class ProcessCase(NamedTuple):
    name: str
    build: Callable[[int], Process]
    reversible: bool = True  # whether P_B is the exact time reversal of the uncontrolled process

    def make(self, dim: int = 2) -> Process:
        """The process of states in R^dim."""
        return self.build(dim)


class LossCase(NamedTuple):
    name: str
    make: Callable[[], Objective]
    definition: Callable[[Trajectory], Tensor]  # written out, pair by pair


def double_loop(pair_weight: Callable[[int, int, int], float]) -> Callable[[Trajectory], Tensor]:
    """The mean over trajectories of sum_{i<j} w_ij (u_i - u_j)^2, for w_ij = pair_weight(i, j, T) unnormalised."""

    def definition(trajectory: Trajectory) -> Tensor:
        u, last = balance_by_hand(trajectory), trajectory.log_pf.shape[0]
        total, mass = 0.0, 0.0
        for i in range(last + 1):
            for j in range(i + 1, last + 1):
                weight = pair_weight(i, j, last)
                total, mass = total + weight * (u[i] - u[j]) ** 2, mass + weight
        return (total / mass).mean()

    return definition


def balance_by_hand(trajectory: Trajectory) -> list[Tensor]:
    """u_0..u_T by their definition; interior flows count as 0 where there are none (pairs of ends do not read them)."""
    last = trajectory.log_pf.shape[0]
    u = []
    for k in range(last + 1):
        steps = sum(
            (trajectory.log_pf[j] - trajectory.log_pb[j] for j in range(k)), torch.zeros_like(trajectory.log_prior)
        )
        if k == 0:
            log_flow = trajectory.log_z + trajectory.log_prior
        elif k == last:
            log_flow = trajectory.log_prob
        else:
            log_flow = torch.zeros_like(steps) if trajectory.log_flow is None else trajectory.log_flow[k - 1]
        u.append(log_flow - steps)
    return u


def log_variance_by_hand(trajectory: Trajectory) -> Tensor:
    u = balance_by_hand(trajectory)
    log_weight = u[-1] - u[0]
    return ((log_weight - log_weight.mean()) ** 2).mean()


ANGLE_AND_REAL = Product([Circle(1), Euclidean(1)])
PROCESSES = [
    ProcessCase("PinnedBrownian", partial(PinnedBrownian, sigma=1.3)),
    ProcessCase("PinnedBrownian-vector", partial(PinnedBrownian, sigma=[1.1, 1.6])),
    ProcessCase("VariancePreserving", partial(VariancePreserving, sigma=1.3)),
    ProcessCase(
        "VariancePreserving-linear", partial(VariancePreserving, sigma=[1.1, 1.6], schedule=LinearSchedule(12.0, 0.5))
    ),
    ProcessCase(
        "VariancePreserving-prior",
        partial(VariancePreserving, sigma=1.3, prior=partial(GaussianPrior, loc=0.2, scale=1.4)),
        False,
    ),
    ProcessCase("VarianceExploding", partial(VarianceExploding, sigma=1.3, noise_max=4.0)),
    ProcessCase("VarianceExploding-vector", partial(VarianceExploding, sigma=[1.1, 1.6], noise_max=4.0, noise_min=0.3)),
    ProcessCase(
        "AnnealedLangevin",
        partial(AnnealedLangevin, sigma=0.7, prior=partial(GaussianPrior, loc=0.3, scale=1.5)),
        False,
    ),
    ProcessCase(
        "AnnealedLangevin-mixture",
        partial(
            AnnealedLangevin,
            sigma=[0.7, 0.9],
            prior=partial(GaussianMixturePrior, num_components=3, scale=1.2, spread=0.6),
        ),
        False,
    ),
    ProcessCase("Bridge", partial(Bridge, sigma=0.7, prior=partial(GaussianPrior, loc=0.3, scale=1.5)), False),
]
PROCESSES_OF_THEIR_OWN_KIND = [
    ProcessCase("Torus", partial(Torus, sigma=1.4)),
    ProcessCase(
        "ProductProcess",
        lambda dim: ProductProcess(ANGLE_AND_REAL, partial(Torus, sigma=1.4), partial(VariancePreserving, sigma=1.3)),
    ),
    ProcessCase(
        "Underdamped",
        partial(Underdamped, sigma=0.7, friction=2.0, prior=partial(GaussianPrior, loc=0.2, scale=1.4)),
        False,
    ),
]
PRIORS: list[tuple[str, Callable[[int], Prior]]] = [
    ("GaussianPrior", partial(GaussianPrior, loc=0.3, scale=1.5)),
    ("GaussianMixturePrior", partial(GaussianMixturePrior, num_components=3, scale=0.8, spread=1.2)),
]
CONTROLS: list[type[Control]] = [
    FourierMLP,
    PreconditionedMLP,
    GaussianBridgeMLP,
    LangevinControl,
    LearnedVariance,
    CoordinatewiseControl,
]
FLOWS: list[type[StateFlow]] = [FourierFlow, ForwardLookingFlow]


def periodic_langevin(dim: int) -> LangevinControl:
    """The score, and a periodic network."""
    return LangevinControl(dim, FourierMLP)


def periodic_learned_variance(dim: int) -> LearnedVariance:
    """The same, with a learned width."""
    return LearnedVariance(dim, periodic_langevin)


def periodic_forward_looking(dim: int) -> ForwardLookingFlow:
    """Between prior and target, corrected by a periodic network."""
    return ForwardLookingFlow(dim, FourierFlow)


def gated(dim: int) -> LangevinControl:
    """The score, gently: momenta of a few large random kicks leave every float behind."""
    return LangevinControl(dim, FourierMLP, initial_gate=0.1)


def gated_learned_variance(dim: int) -> LearnedVariance:
    """The same, with a learned width."""
    return LearnedVariance(dim, gated)


def periodic_coordinatewise(dim: int) -> CoordinatewiseControl:
    """A function of each angle and its score."""
    return CoordinatewiseControl(dim, FourierMLP)


PERIODIC_CONTROLS: list[Callable[[Process | int], Control]] = [
    FourierMLP,
    periodic_langevin,
    periodic_learned_variance,
    periodic_coordinatewise,
]


UNDERDAMPED_CONTROLS: list[Callable[[Process | int], Control]] = [FourierMLP, gated, gated_learned_variance]
PERIODIC_FLOWS: list[Callable[[int], StateFlow]] = [FourierFlow, periodic_forward_looking]
LOSSES = [
    LossCase("TrajectoryBalance", TrajectoryBalance, double_loop(lambda i, j, last: float(j - i == last))),
    LossCase("DetailedBalance", DetailedBalance, double_loop(lambda i, j, last: float(j - i == 1))),
    LossCase("SubTB-0.5", lambda: SubTrajectoryBalance(0.5), double_loop(lambda i, j, last: 0.5 ** (j - i))),
    LossCase("SubTB-1", lambda: SubTrajectoryBalance(1.0), double_loop(lambda i, j, last: 1.0)),
    LossCase("SubTB-2", lambda: SubTrajectoryBalance(2.0), double_loop(lambda i, j, last: 2.0 ** (j - i))),
    LossCase("LengthBalance", lambda: LengthBalance([1, 3]), double_loop(lambda i, j, last: float(j - i in {1, 3}))),
    LossCase("LogVariance", LogVariance, log_variance_by_hand),
]
# Losses whose least value is no zero: bounds on log Z, and likelihoods.
BOUNDS: list[Callable[[], Objective]] = [ScoreFunctionReverseKL, PathwiseReverseKL, MaximumLikelihood]


def searching() -> Replay:
    """Replay of points that a Markov chain has moved, from the second turn on."""
    return Replay(search=MarkovChainSearch(num_steps=6, burn_in=2, keep_every=2), search_every=1)


def backtracking() -> Replay:
    """Replay of points that have walked back and forth."""
    return Replay(Exploration(), priority=RankPriority(), search=BackAndForth(2, 2), search_every=1)


def alternating() -> Alternation:
    """Rollouts and rollbacks in turns."""
    return Alternation([ExpertSamples(), OnPolicy()])


def mixing() -> Mixture:
    """Replay by importance and exploration, at random."""
    return Mixture([Replay(priority=ImportancePriority()), Exploration()], [0.7, 0.3])


def resampling() -> SequentialMonteCarlo:
    """Resampling, but not so often that the wild weights of a few random paths leave one of them."""
    return SequentialMonteCarlo(0.1)


def weighing() -> WeightedPaths:
    """A few paths, drawn again, but not so much by the wild weights of random ones that one of them is all there is."""
    return WeightedPaths(32, trust_region=0.1)


BEHAVIOURS: list[Callable[[], Behaviour]] = [
    OnPolicy,
    Exploration,
    ExpertSamples,
    Replay,
    searching,
    backtracking,
    alternating,
    mixing,
    resampling,
    weighing,
]
GRIDS: list[tuple[str, Callable[[int], Grid]]] = [
    ("UniformGrid", UniformGrid),
    ("PowerGrid", PowerGrid),
    ("PowerGrid-0.5", lambda num_steps: PowerGrid(num_steps, power=0.5)),
    ("GeometricGrid", GeometricGrid),
    ("GeometricGrid-0.5", lambda num_steps: GeometricGrid(num_steps, last=0.5)),
    ("LogSNRGrid", LogSNRGrid),
    ("JitteredGrid", JitteredGrid),
    ("JitteredGrid-0.99", lambda num_steps: JitteredGrid(num_steps, jitter=0.99)),
]


def by_name(case: object) -> str:
    """The identifier of a list entry in pytest's output."""
    return getattr(case, "name", None) or getattr(case, "__name__", None) or str(case[0])


NARROW, WIDE = [[0.9, 0.3], [0.3, 0.6]], [[1.4, 0.3], [0.3, 2.2]]


def correlated_gaussian(log_z: float = 0.8, covariance: list[list[float]] = NARROW) -> Target:
    """A Gaussian off the origin, with correlation, times exp(log_z)."""
    gaussian = Gaussian(mean=[0.4, -0.3], covariance=covariance)
    target = FunctionTarget(lambda x: gaussian.log_prob(x) + log_z, dim=2, log_z=log_z)
    target.gaussian = gaussian  # a submodule: its buffers follow the target's device and dtype
    target.sample = gaussian.sample
    return target


def angle_and_real() -> Target:
    """An angle with a von Mises density, and a real that is normal around its sine."""
    log_z = 1.5 * math.log(2 * math.pi) + math.log(float(torch.special.i0(torch.tensor(0.8, dtype=torch.float64))))

    def log_prob(x: Tensor) -> Tensor:
        return 0.8 * x[..., 0].cos() - 0.5 * (x[..., 1] - x[..., 0].sin()) ** 2

    def sample(n: int, generator: torch.Generator | None = None) -> Tensor:
        # By rejection from the uniform density, of which a half is kept: 8 n + 64 are enough.
        u = torch.rand(8 * n + 64, 2, generator=generator, device=None if generator is None else generator.device)
        angle = math.pi * (2 * u[:, 0] - 1)
        angle = angle[u[:, 1].log() < 0.8 * (angle.cos() - 1)][:n]
        return torch.stack([angle, angle.sin() + torch.randn(n, generator=generator, device=u.device)], -1)

    target = FunctionTarget(log_prob, dim=2, log_z=log_z, space=ANGLE_AND_REAL)
    target.sample = sample
    return target


def two_modes() -> GaussianMixture:
    """Two modes of unequal weight, width and distance from the origin."""
    return GaussianMixture(means=[[-1.2, 0.5], [1.0, -0.7]], scales=[[0.5, 0.8], [0.7, 0.4]], weights=[0.3, 0.7])


def centred_gaussian(sigma: Tensor, log_z: float = 0.7) -> Target:
    """exp(log_z) N(0, sigma^2): the end point of the uncontrolled Brownian motion."""

    def log_prob(x: Tensor) -> Tensor:
        scale = sigma.to(x)
        return log_z - (0.5 * (x / scale) ** 2 + scale.log() + 0.5 * math.log(2 * math.pi)).sum(-1)

    return FunctionTarget(log_prob, dim=len(sigma), log_z=log_z)


class CountingTarget(Target):
    """A target that counts the points it is asked for, independently of the library's own count."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.dim)
        self.target, self.log_z, self.count = target, target.log_z, 0

    def log_prob(self, x: Tensor) -> Tensor:
        self.count += x.shape[:-1].numel()
        return self.target.log_prob(x)


class ZeroControl(Control):
    """u = 0."""

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


class ConstantControl(ZeroControl):
    """The same u everywhere."""

    def __init__(self, control: list[float]) -> None:
        super().__init__()
        self.control = nn.Parameter(torch.tensor(control))

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        return self.control.expand_as(x)


class MixtureBridge:
    """The Brownian bridge to a Gaussian mixture, in closed form: Foellmer control and marginals.

    Given x_1 in component i, x_t ~ N(t m_i, t c_i), c_i = t s_i^2 + (1 - t) sigma^2. Divided by the reference
    N(0, t sigma^2) this is a function h_t with no singularity at t = 0; the optimal control is sigma grad log h_t.
    """

    def __init__(self, mixture: GaussianMixture, sigma: float) -> None:
        self.m, self.s, self.w, self.sigma = mixture.means, mixture.scales, mixture.weights, sigma

    def _joint(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """log (w_i h_i), with shape (*, K), and grad log h_i, with shape (*, K, D)."""
        t, x, v = t.unsqueeze(-1), x.unsqueeze(-2), self.sigma**2
        c = t * self.s**2 + (1 - t) * v
        quadratic = x**2 * (v - self.s**2) / (c * v) - 2 * x * self.m / c + t * self.m**2 / c
        log_h = (-0.5 * (c / v).log() - 0.5 * quadratic).sum(-1)
        return self.w.log() + log_h, (x * (self.s**2 - v) / v + self.m) / c

    def control(self, t: Tensor, x: Tensor) -> Tensor:
        joint, gradient = self._joint(t, x)
        return self.sigma * (joint.softmax(-1).unsqueeze(-1) * gradient).sum(-2)

    def log_marginal(self, t: Tensor, x: Tensor) -> Tensor:
        variance = t * self.sigma**2
        reference = -0.5 * (x**2 / variance + (2 * math.pi * variance).log()).sum(-1)
        return self._joint(t, x)[0].logsumexp(-1) + reference


class FoellmerControl(Control):
    """The control under which the continuous process ends in the mixture."""

    def __init__(self, bridge: MixtureBridge) -> None:
        super().__init__()
        self.bridge = bridge

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        return self.bridge.control(embedding, x)


class ExactFlow(StateFlow):
    """log Z plus a closed-form log marginal(t, x)."""

    def __init__(self, log_marginal: Callable[[Tensor, Tensor], Tensor], log_z: float) -> None:
        super().__init__()
        self.log_marginal, self.log_z = log_marginal, log_z

    def forward(self, embedding: Tensor, x: Tensor, interpolation: Tensor | None = None) -> Tensor:
        return self.log_z + self.log_marginal(embedding, x)


def seeded(seed: int) -> torch.Generator:
    """Noise on the device under test."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def randomise(module: nn.Module, scale: float = 0.15, seed: int = 7) -> None:
    """Move every parameter off its initial value, zero-initialised outputs included: nothing stays trivially zero."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += scale * noise.to(parameter)


# Random networks this much off their initial values leave weights with a variance of order 1, which z-tests need.
MILD = 0.05


def random_sampler(target: Target | None = None, scale: float = 0.15, seed: int = 7, **parts: object) -> Sampler:
    """An untrained sampler whose networks are random functions."""
    # By a seed of its own, not that of all samplers; the fork keeps the global generator out of it.
    with torch.random.fork_rng(devices=[]), patch("diffsampler.policy.fixed_weights", nullcontext):
        torch.manual_seed(seed)
        sampler = Sampler(correlated_gaussian() if target is None else target, **parts)
    randomise(sampler, scale, seed)
    return sampler


@lru_cache
def found_by(make: Callable[[], Target]) -> dict[str, object]:
    """The state of a sampler after its search, which costs seconds."""
    sampler = Sampler(make())
    sampler.search(seed=0)
    return sampler.state_dict()


def searched(make: Callable[[], Target], target: Target | None = None) -> Sampler:
    """A sampler that need not search any more, of `make()` or of the same density given as `target`."""
    sampler = Sampler(make() if target is None else target)
    sampler.load_state_dict(copy.deepcopy(found_by(make)))
    return sampler


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over the first axis and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def assert_mean(values: Tensor, expected: float, what: str) -> None:
    """A z-test of the mean of independent values with the bound `Z_BOUND`."""
    mean, error = mean_and_error(values)
    assert abs(mean - expected) < Z_BOUND * error, f"{what}: {mean:.5f} +- {error:.5f}, expected {expected:.5f}"
