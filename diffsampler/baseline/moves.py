"""How particles move: reversible proposals on a target, or on the densities between a prior and a target."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.proposal import Proposal
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.errors import check_count
from diffsampler.spaces.kernels import noise_like, uniform_like

NUM_HAMILTONIAN_MOVES, NUM_RANDOM_WALKS = 2, 12
INDEPENDENT = 0.3
FAR = 1e30  # where trajectories have diverged: powers of it overflow, through no fault of the target

State = TypeVar("State", bound="Particles")


@dataclass(frozen=True)
class Particles:
    """Points x, with shape (n, D), the target's log_prob there, and its score."""

    x: Tensor
    log_prob: Tensor
    score: Tensor

    def tempered(self, beta: float) -> tuple[Tensor, Tensor]:
        """log pi_b and its score; -inf where the target is zero."""
        del beta  # there is no prior to temper with
        return self.log_prob, self.score

    def __getitem__(self: State, rows: Tensor | tuple[Tensor, ...]) -> State:
        return type(self)(*(value[rows] for value in vars(self).values()))

    def put(self: State, rows: Tensor, other: State) -> None:
        """Put others, one for each, into the named rows."""
        for value, new in zip(vars(self).values(), vars(other).values(), strict=True):
            value[rows] = new

    def where(self: State, accepted: Tensor, other: State) -> State:
        """The other particle where it was accepted."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return type(self)(*(torch.where(accepted if a.ndim == 1 else accepted[:, None], b, a) for a, b in pairs))


@dataclass(frozen=True)
class AnnealedParticles(Particles):
    """And what the path from a prior needs there."""

    log_prior: Tensor
    prior_score: Tensor

    def tempered(self, beta: float) -> tuple[Tensor, Tensor]:
        log_prob = torch.lerp(self.log_prior, self.log_prob, beta) if beta < 1 else self.log_prob
        log_prob = torch.where(self.log_prob.isneginf(), self.log_prob, log_prob)
        return log_prob, torch.lerp(self.prior_score, self.score, beta)

    @property
    def log_ratio(self) -> Tensor:
        """log R - log prior, with shape (n)."""
        return self.log_prob - self.log_prior


class TargetPath:
    """Evaluates a target; what is no number counts as zero density, a score that is none as zero."""

    def __init__(self, target: CountedTarget) -> None:
        self.target = target

    def passing(self, x: Tensor, beta: float) -> Particles:
        """The particles in x, of which only what is tempered with beta is asked: others follow in the same move."""
        del beta
        return self.at(x)

    def at(self, x: Tensor) -> Particles:
        """The particles in x."""
        log_prob, score = self.target.log_prob_and_score(x)
        return Particles(x, or_zero_density(log_prob), score.nan_to_num(0.0, 0.0, 0.0))


class AnnealedPath(TargetPath):
    """Evaluates target and prior together."""

    def __init__(self, target: CountedTarget, prior: GaussianComponents | Proposal, move: "Move") -> None:
        super().__init__(target)
        self.prior, self.move = prior, move

    def passing(self, x: Tensor, beta: float) -> Particles:
        return self._of_target(x) if beta == 1 else self.at(x)

    def at(self, x: Tensor) -> AnnealedParticles:
        """The particles in x."""
        found = self._of_target(x)
        return AnnealedParticles(found.x, found.log_prob, found.score, *self.prior.log_prob_and_score(found.x))

    def _of_target(self, x: Tensor) -> Particles:
        """Those that have diverged get the density zero, without asking the target."""
        diverged = ~(x.abs() < FAR).all(-1)
        x = torch.where(diverged.unsqueeze(-1), self.prior.centre, x)
        if self.move.uses_score:
            found = super().at(x)
        else:
            found = Particles(x, or_zero_density(self.target.log_prob(x)), torch.zeros_like(x))
        return replace(found, log_prob=torch.where(diverged, -math.inf, found.log_prob))


@dataclass(frozen=True)
class Rung:
    """One density of the path, and how particles move there.

    Attributes:
        beta: in (0, 1].
        factor: a square root of the covariance of the particles there, with shape (D, D) or (): the units of a move.
            None is the identity.
        step_size: in those units.
        walk_size: of moves that leave the prior unchanged, in (0, 1].
    """

    beta: float
    factor: Tensor | None
    step_size: float
    walk_size: float = 1.0

    def in_units(self, z: Tensor) -> Tensor:
        """factor z, with shape (n, D)."""
        return z if self.factor is None else z @ self.factor.T if self.factor.ndim else z * self.factor

    def back(self, score: Tensor) -> Tensor:
        """The gradient in z of what has this gradient in factor z, both with shape (n, D)."""
        return score if self.factor is None else score @ self.factor if self.factor.ndim else score * self.factor


class Move(ABC):
    """A reversible proposal in units of a rung's covariance.

    Attributes:
        uses_score: whether it needs the target's gradient.
        target_acceptance: at which acceptance rate its step size is best.
    """

    uses_score: bool
    target_acceptance: float

    def initial_step_size(self, dim: int) -> float:
        """Good for a Gaussian in D dimensions."""
        del dim
        return 1.0

    @abstractmethod
    def propose(
        self, path: TargetPath, particles: State, rung: Rung, generator: torch.Generator
    ) -> tuple[State, Tensor]:
        """Proposals, and the logs of their Metropolis-Hastings ratios, with shape (n)."""

    def apply(self, path: TargetPath, particles: State, rung: Rung, generator: torch.Generator) -> tuple[State, float]:
        """The particles after one accepted or rejected move, and the acceptance rate."""
        proposals, log_ratio = self.propose(path, particles, rung, generator)
        probability = log_ratio.nan_to_num(-math.inf, 0.0, -math.inf).clamp(max=0.0).exp()
        accepted = uniform_like(probability, generator) < probability
        return particles.where(accepted, proposals), float(probability.mean())


class HamiltonianMove(Move):
    """Hamiltonian Monte Carlo whose mass matrix is the inverse covariance of the particles.

    References:
        MCMC using Hamiltonian dynamics, Neal, 2011, arXiv:1206.1901.

    Arguments:
        num_leapfrog: leapfrog steps of a move, one evaluation of the target each.
        jitter: how far the step size of a particle strays, as a share: trajectories keep off the periods of the
            dynamics.
    """

    uses_score = True
    target_acceptance = 0.8

    def __init__(self, num_leapfrog: int = 8, jitter: float = 0.4) -> None:
        self.num_leapfrog = check_count("num_leapfrog", num_leapfrog)
        self.jitter = jitter

    def initial_step_size(self, dim: int) -> float:
        return dim**-0.25

    def propose(
        self, path: TargetPath, particles: State, rung: Rung, generator: torch.Generator
    ) -> tuple[State, Tensor]:
        start, step_size = noise_like(particles.x, generator), rung.step_size
        if self.jitter:
            step_size = step_size * (1 - self.jitter + 2 * self.jitter * uniform_like(particles.x[:, :1], generator))
        current, momentum = particles, start
        log_start, score = particles.tempered(rung.beta)
        for k in range(1, self.num_leapfrog + 1):
            momentum = momentum + 0.5 * step_size * rung.back(score)
            x = current.x + step_size * rung.in_units(momentum)
            current = path.at(x) if k == self.num_leapfrog else path.passing(x, rung.beta)
            log_end, score = current.tempered(rung.beta)
            momentum = momentum + 0.5 * step_size * rung.back(score)
        return current, log_end - log_start + 0.5 * (start.square() - momentum.square()).sum(-1)


class RandomWalkMove(Move):
    """A Gaussian random walk: needs no gradient."""

    uses_score = False
    target_acceptance = 0.234

    def initial_step_size(self, dim: int) -> float:
        return 2.38 / math.sqrt(dim)

    def propose(
        self, path: TargetPath, particles: State, rung: Rung, generator: torch.Generator
    ) -> tuple[State, Tensor]:
        noise = noise_like(particles.x, generator)
        proposals = path.at(particles.x + rung.step_size * rung.in_units(noise))
        return proposals, proposals.tempered(rung.beta)[0] - particles.tempered(rung.beta)[0]


class PriorMove(Move):
    """A step that leaves the prior unchanged, accepted by how the target differs from it: good where they are alike.

    A third of the proposals are independent draws, which go from mode to mode; the rest turn towards one.
    """

    uses_score = False
    target_acceptance = 0.3

    def propose(
        self, path: AnnealedPath, particles: AnnealedParticles, rung: Rung, generator: torch.Generator
    ) -> tuple[AnnealedParticles, Tensor]:
        x, prior = particles.x, path.prior
        angle = (0.5 * math.pi * min(rung.walk_size, 1.0)) * uniform_like(x[:, 0], generator).sqrt()
        fresh = uniform_like(x[:, 0], generator) < INDEPENDENT
        moved = torch.where(fresh.unsqueeze(-1), prior.sample(len(x), generator), prior.walk(x, angle, generator))
        proposals = path.at(moved)
        return proposals, rung.beta * (proposals.log_ratio - particles.log_ratio)


def default_move(target: CountedTarget) -> tuple[Move, int]:
    """How particles move on a target, and how often at a rung."""
    if target.differentiable:
        return HamiltonianMove(), NUM_HAMILTONIAN_MOVES
    return RandomWalkMove(), NUM_RANDOM_WALKS


def moved_along(
    path: AnnealedPath, x: Tensor, rungs: Iterable[Rung], generator: torch.Generator
) -> Iterator[AnnealedParticles]:
    """Where points x, with shape (n, D), are after two moves at each rung, one that knows the prior and the path's."""
    particles = path.at(x)
    for rung in rungs:
        for move in (PriorMove(), path.move):
            particles, _ = move.apply(path, particles, rung, generator)
        yield particles
