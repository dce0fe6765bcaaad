"""Markov chains that leave the target unchanged: MALA and HMC, many chains side by side.

Chains run on a `CountedTarget`, in the coordinates of its states.
"""

import math

import torch

from diffsampler.baseline.moves import HamiltonianMove, Move, Particles, Rung, TargetPath
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError, check_positive


class MarkovChain:
    """A move whose step size adapts to an acceptance rate.

    Arguments:
        move: of every chain.
        step_size: to begin with; positive.
        target_acceptance: the acceptance rate that adaptation aims at, in (0, 1).

    Attributes:
        step_size: as adapted so far; adaptation breaks detailed balance, so fix it (`adapt=False`) where that matters.
    """

    def __init__(self, move: Move, step_size: float, target_acceptance: float) -> None:
        self.move = move
        self.step_size = check_positive("step_size", step_size)
        if not 0 < target_acceptance < 1:
            raise InputError(f"target_acceptance must be above 0 and below 1, got {target_acceptance!r}.")
        self.target_acceptance = target_acceptance

    @torch.no_grad()
    def step(
        self, target: CountedTarget, state: Particles, generator: torch.Generator | None = None, adapt: bool = True
    ) -> tuple[Particles, float]:
        """One accepted or rejected move of every chain, and the mean acceptance probability."""
        state, acceptance = self.move.apply(TargetPath(target), state, Rung(1.0, None, self.step_size), generator)
        if adapt:
            self.step_size *= math.exp(0.2 * (acceptance - self.target_acceptance))
        return state, acceptance


class MALA(MarkovChain):
    """The Metropolis-adjusted Langevin algorithm, which is Hamiltonian Monte Carlo of one step.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations, Roberts & Tweedie, 1996.
    """

    def __init__(self, step_size: float = 0.1, target_acceptance: float = 0.574) -> None:
        super().__init__(HamiltonianMove(1, jitter=0.0), step_size, target_acceptance)


class HMC(MarkovChain):
    """Hamiltonian Monte Carlo with unit masses: `num_leapfrog` steps of length `step_size`, which is jittered."""

    def __init__(self, step_size: float = 0.1, num_leapfrog: int = 8, target_acceptance: float = 0.8) -> None:
        super().__init__(HamiltonianMove(num_leapfrog, jitter=0.2), step_size, target_acceptance)
