"""How particles move: reversible proposals on the densities between a prior and a target."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.mcmc import leapfrog
from diffsampler.baseline.proposal import Proposal
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.errors import check_count
from diffsampler.spaces.kernels import noise_like

__all__ = [
    "AnnealedPath",
    "HamiltonianMove",
    "Move",
    "Particles",
    "PriorMove",
    "RandomWalkMove",
    "Rung",
    "default_move",
]

NUM_HAMILTONIAN_MOVES, NUM_RANDOM_WALKS = 2, 12
INDEPENDENT = 0.3


@dataclass(frozen=True)
class Particles:
    """Points and what the path of densities needs there; n of them, in D dimensions."""

    x: Tensor
    log_prob: Tensor
    score: Tensor
    log_prior: Tensor
    prior_score: Tensor

    def tempered(self, beta: float) -> tuple[Tensor, Tensor]:
        """log pi_b and its score; -inf where the target is zero."""
        log_prob = torch.lerp(self.log_prior, self.log_prob, beta) if beta < 1 else self.log_prob
        log_prob = torch.where(self.log_prob.isneginf(), self.log_prob, log_prob)
        return log_prob, torch.lerp(self.prior_score, self.score, beta)

    def __getitem__(self, rows: Tensor) -> "Particles":
        return Particles(*(value[rows] for value in vars(self).values()))

    def where(self, accepted: Tensor, other: "Particles") -> "Particles":
        """The other particle where it was accepted."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Particles(*(torch.where(accepted if a.ndim == 1 else accepted[:, None], b, a) for a, b in pairs))


class AnnealedPath:
    """Evaluates target and prior together; what is no number counts as zero density."""

    def __init__(self, target: CountedTarget, prior: GaussianComponents | Proposal, move: "Move") -> None:
        self.target, self.prior, self.move = target, prior, move

    def at(self, x: Tensor) -> Particles:
        """The particles in x; those that have diverged get the density zero, without asking the target."""
        diverged = ~x.isfinite().all(-1)
        x = torch.where(diverged.unsqueeze(-1), self.prior.centre, x)
        if self.move.uses_score:
            log_prob, score = self.target.log_prob_and_score(x)
            score = score.nan_to_num(0.0, 0.0, 0.0)
        else:
            log_prob, score = self.target.log_prob(x), torch.zeros_like(x)
        log_prob = torch.where(diverged, -math.inf, or_zero_density(log_prob))
        return Particles(x, log_prob, score, *self.prior.log_prob_and_score(x))


@dataclass(frozen=True)
class Rung:
    """One density of the path, and how particles move there.

    Attributes:
        beta: in (0, 1].
        factor: a square root of the covariance of the particles there, with shape (D, D): the units of a move.
        step_size: in those units.
        walk_size: of moves that leave the prior unchanged, in (0, 1].
    """

    beta: float
    factor: Tensor
    step_size: float
    walk_size: float = 1.0


class Move(ABC):
    """A reversible proposal in units of a rung's covariance.

    Attributes:
        uses_score: whether it needs the target's gradient.
        target_acceptance: at which acceptance rate its step size is best.
    """

    uses_score: bool
    target_acceptance: float

    @abstractmethod
    def initial_step_size(self, dim: int) -> float:
        """Good for a Gaussian in D dimensions."""

    @abstractmethod
    def propose(
        self, path: AnnealedPath, particles: Particles, rung: Rung, generator: torch.Generator | None
    ) -> tuple[Particles, Tensor]:
        """Proposals, and the logs of their Metropolis-Hastings ratios, with shape (n)."""

    def apply(
        self, path: AnnealedPath, particles: Particles, rung: Rung, generator: torch.Generator | None
    ) -> tuple[Particles, float]:
        """The particles after one accepted or rejected move, and the acceptance rate."""
        proposals, log_ratio = self.propose(path, particles, rung, generator)
        probability = log_ratio.nan_to_num(-math.inf, 0.0, -math.inf).clamp(max=0.0).exp()
        uniform = torch.rand(probability.shape, generator=generator, dtype=probability.dtype, device=probability.device)
        return particles.where(uniform < probability, proposals), float(probability.mean())


class HamiltonianMove(Move):
    """Hamiltonian Monte Carlo whose mass matrix is the inverse covariance of the particles.

    Arguments:
        num_leapfrog: leapfrog steps of a move, one evaluation of the target each.
    """

    uses_score = True
    target_acceptance = 0.8

    def __init__(self, num_leapfrog: int = 8) -> None:
        self.num_leapfrog = check_count("num_leapfrog", num_leapfrog)

    def initial_step_size(self, dim: int) -> float:
        return dim**-0.25

    def propose(
        self, path: AnnealedPath, particles: Particles, rung: Rung, generator: torch.Generator | None
    ) -> tuple[Particles, Tensor]:
        x = particles.x
        start = noise_like(x, generator)
        # One step size for each particle: trajectories keep off the periods of the dynamics.
        jitter = torch.rand((len(x), 1), generator=generator, dtype=x.dtype, device=x.device)
        step_size = rung.step_size * (0.6 + 0.8 * jitter)

        def force_at(x: Tensor) -> tuple[Particles, Tensor]:
            moved = path.at(x)
            return moved, moved.tempered(rung.beta)[1] @ rung.factor

        log_start, score = particles.tempered(rung.beta)
        force = score @ rung.factor
        current, momentum = leapfrog(particles, force, start, step_size, self.num_leapfrog, force_at, rung.factor)
        kinetic = 0.5 * (start.square() - momentum.square()).sum(-1)
        return current, current.tempered(rung.beta)[0] - log_start + kinetic


class RandomWalkMove(Move):
    """A Gaussian random walk: needs no gradient."""

    uses_score = False
    target_acceptance = 0.234

    def initial_step_size(self, dim: int) -> float:
        return 2.38 / math.sqrt(dim)

    def propose(
        self, path: AnnealedPath, particles: Particles, rung: Rung, generator: torch.Generator | None
    ) -> tuple[Particles, Tensor]:
        x = particles.x
        noise = noise_like(x, generator)
        proposals = path.at(x + rung.step_size * (noise @ rung.factor.T))
        return proposals, proposals.tempered(rung.beta)[0] - particles.tempered(rung.beta)[0]


class PriorMove(Move):
    """A step that leaves the prior unchanged, accepted by how the target differs from it: good where they are alike.

    A third of the proposals are independent draws, which go from mode to mode; the rest turn towards one.
    """

    uses_score = False
    target_acceptance = 0.3

    def initial_step_size(self, dim: int) -> float:
        return 1.0

    def propose(
        self, path: AnnealedPath, particles: Particles, rung: Rung, generator: torch.Generator | None
    ) -> tuple[Particles, Tensor]:
        x, prior = particles.x, path.prior
        options = {"generator": generator, "dtype": x.dtype, "device": x.device}
        angle = (0.5 * math.pi * min(rung.walk_size, 1.0)) * torch.rand(len(x), **options).sqrt()
        fresh = torch.rand(len(x), **options) < INDEPENDENT
        moved = torch.where(fresh.unsqueeze(-1), prior.sample(len(x), generator), prior.walk(x, angle, generator))
        proposals = path.at(moved)
        log_ratio = rung.beta * (
            (proposals.log_prob - proposals.log_prior) - (particles.log_prob - particles.log_prior)
        )
        return proposals, log_ratio


def default_move(target: CountedTarget) -> tuple[Move, int]:
    """How particles move on a target, and how often at a rung."""
    if target.differentiable:
        return HamiltonianMove(), NUM_HAMILTONIAN_MOVES
    return RandomWalkMove(), NUM_RANDOM_WALKS
