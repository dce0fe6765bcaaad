"""What a sampler is made of, and how it is trained, when nothing but the target is given: search, learn, correct.

A search without learning (`SearchedCoordinates`) finds place, scale and draws of the target. A score-free
variance-preserving process with learned means and widths is fitted to those draws by maximum likelihood, without a
single target evaluation, then sharpened by log-variance, on its own paths and on rolled-back ones in turns. Importance
weights correct what is left.
"""

from collections.abc import Callable
from functools import partial

from diffsampler.behaviours import Alternation, Behaviour, OnPolicy, SearchedPoints, Succession
from diffsampler.coordinates import SearchedCoordinates
from diffsampler.losses import LogVariance, Loss, MaximumLikelihood, Stages
from diffsampler.networks import Drift, LearnedVariance, MixtureControl, PreconditionedMLP
from diffsampler.processes import Process, VariancePreserving
from diffsampler.target import Target

__all__ = ["default_parts", "default_training"]

NUM_STEPS = 32
WIDTH = 128
NUM_TRANSITIONS = 2048
SHARE_FITTED, SHARE_SHARPENED = 0.75, 0.25
# Twice as much makes the averaged weights noisy, a third leaves the fit unfinished after 2000 steps.
LR = 3e-3


def default_parts() -> tuple[Process, Callable[[int], Drift], int, Callable[[Target], SearchedCoordinates]]:
    """Process, drift, grid and coordinates of a `Sampler`, which makes the coordinates first."""
    found: list[SearchedCoordinates] = []

    def coordinates(target: Target) -> SearchedCoordinates:
        found.append(SearchedCoordinates(target))
        return found[-1]

    def drift(dim: int) -> Drift:
        learned = partial(LearnedVariance, network=partial(PreconditionedMLP, width=WIDTH), width=WIDTH)
        return MixtureControl(dim, learned, found[-1].get_mixture, 1 / NUM_STEPS)

    return VariancePreserving(), drift, NUM_STEPS, coordinates


def default_training() -> tuple[Loss, Behaviour, float]:
    """Loss, behaviour and learning rate for such a sampler."""
    loss = Stages([MaximumLikelihood(NUM_TRANSITIONS), LogVariance()])
    sharpening = Alternation([OnPolicy(), SearchedPoints()])
    return loss, Succession([SearchedPoints(), sharpening], [SHARE_FITTED, SHARE_SHARPENED]), LR
