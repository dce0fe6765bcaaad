"""Markov chains that leave the target unchanged: MALA and HMC, many chains side by side.

Chains run on a `CountedTarget`, in the coordinates of its states. Where the density is zero or no number a proposal is
rejected; a score that is not finite ends a trajectory in rejection too.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.spaces.kernels import noise_like

__all__ = ["HMC", "MALA", "ChainState", "MarkovChain", "leapfrog"]

State = TypeVar("State")


@dataclass
class ChainState:
    """Where n chains stand.

    Attributes:
        x: with shape (n, D).
        log_prob: log R(x), with shape (n).
        score: its gradient, with shape (n, D).
    """

    x: Tensor
    log_prob: Tensor
    score: Tensor

    @classmethod
    def at(cls, target: CountedTarget, x: Tensor) -> "ChainState":
        """The state of chains that start in x."""
        return cls(x, *target.log_prob_and_score(x))

    def where(self, accepted: Tensor, other: "ChainState") -> "ChainState":
        """The other state for chains that accepted it, this one for the rest."""
        column = accepted.unsqueeze(-1)
        return ChainState(
            torch.where(column, other.x, self.x),
            torch.where(accepted, other.log_prob, self.log_prob),
            torch.where(column, other.score, self.score),
        )


def leapfrog(
    state: State,
    force: Tensor,
    momentum: Tensor,
    step_size: Tensor,
    num_steps: int,
    force_at: Callable[[Tensor], tuple[State, Tensor]],
    factor: Tensor | None = None,
) -> tuple[State, Tensor]:
    """Where Hamiltonian dynamics take a state with positions `x`, and its momentum.

    Arguments:
        state: where they start.
        force: the score there, in the units of momenta, with shape (n, D).
        momentum: with shape (n, D).
        step_size: with shape () or (n, 1).
        num_steps: each asks for the force once.
        force_at: the state in x, and the force there.
        factor: a square root of the inverse mass matrix, with shape (D, D): positions move by factor momentum. By
            default the identity.
    """
    for _ in range(num_steps):
        momentum = momentum + 0.5 * step_size * force
        velocity = momentum if factor is None else momentum @ factor.T
        state, force = force_at(state.x + step_size * velocity)
        momentum = momentum + 0.5 * step_size * force
    return state, momentum


class MarkovChain(ABC):
    """A Metropolis chain whose step size adapts to an acceptance rate.

    Arguments:
        step_size: to begin with; positive.
        target_acceptance: the acceptance rate that adaptation aims at, in (0, 1).

    Attributes:
        step_size: as adapted so far; adaptation breaks detailed balance, so fix it (`adapt=False`) where that matters.
    """

    def __init__(self, step_size: float, target_acceptance: float) -> None:
        self.step_size = check_positive("step_size", step_size)
        if not 0 < target_acceptance < 1:
            raise InputError(f"target_acceptance must be above 0 and below 1, got {target_acceptance!r}.")
        self.target_acceptance = target_acceptance

    @abstractmethod
    def propose(
        self, target: CountedTarget, state: ChainState, generator: torch.Generator | None
    ) -> tuple[ChainState, Tensor]:
        """A proposal, and the log of its Metropolis-Hastings ratio, with shape (n)."""

    @torch.no_grad()
    def step(
        self, target: CountedTarget, state: ChainState, generator: torch.Generator | None = None, adapt: bool = True
    ) -> tuple[ChainState, float]:
        """One accepted or rejected move of every chain, and the mean acceptance probability."""
        proposal, log_ratio = self.propose(target, state, generator)
        probability = log_ratio.nan_to_num(-math.inf, -math.inf, -math.inf).clamp(max=0.0).exp()
        probability = probability * (proposal.log_prob.isfinite() & proposal.score.isfinite().all(-1))
        uniform = torch.rand(probability.shape, generator=generator, dtype=probability.dtype, device=probability.device)
        acceptance = float(probability.mean())
        if adapt:
            self.step_size *= math.exp(0.2 * (acceptance - self.target_acceptance))
        return state.where(uniform < probability, proposal), acceptance


class MALA(MarkovChain):
    """The Metropolis-adjusted Langevin algorithm: N(x + h score / 2, h) proposes, with h = step_size^2.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations, Roberts & Tweedie, 1996.
    """

    def __init__(self, step_size: float = 0.1, target_acceptance: float = 0.574) -> None:
        super().__init__(step_size, target_acceptance)

    def propose(
        self, target: CountedTarget, state: ChainState, generator: torch.Generator | None
    ) -> tuple[ChainState, Tensor]:
        h = self.step_size**2
        noise = noise_like(state.x, generator)
        proposal = ChainState.at(target, state.x + 0.5 * h * state.score + self.step_size * noise)
        back = (state.x - proposal.x - 0.5 * h * proposal.score) / self.step_size
        log_ratio = proposal.log_prob - state.log_prob + 0.5 * (noise.square() - back.square()).sum(-1)
        return proposal, log_ratio


class HMC(MarkovChain):
    """Hamiltonian Monte Carlo with unit masses: `num_leapfrog` steps of length `step_size`.

    References:
        MCMC using Hamiltonian dynamics, Neal, 2011, arXiv:1206.1901.
    """

    def __init__(self, step_size: float = 0.1, num_leapfrog: int = 8, target_acceptance: float = 0.8) -> None:
        super().__init__(step_size, target_acceptance)
        self.num_leapfrog = check_count("num_leapfrog", num_leapfrog)

    def propose(
        self, target: CountedTarget, state: ChainState, generator: torch.Generator | None
    ) -> tuple[ChainState, Tensor]:
        start = noise_like(state.x, generator)
        # A jittered step keeps trajectories off the periods of the dynamics.
        jitter = torch.rand((), generator=generator, dtype=torch.float64, device=state.x.device).to(state.x.dtype)
        step_size = self.step_size * (0.8 + 0.4 * jitter)

        def force_at(x: Tensor) -> tuple[ChainState, Tensor]:
            moved = ChainState.at(target, x)
            return moved, moved.score

        current, momentum = leapfrog(state, state.score, start, step_size, self.num_leapfrog, force_at)
        kinetic = 0.5 * (start.square() - momentum.square()).sum(-1)
        return current, current.log_prob - state.log_prob + kinetic
