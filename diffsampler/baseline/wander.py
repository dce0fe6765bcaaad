"""Where moves lead that leave the target unchanged: past the edge of what a proposal draws, if the target goes on."""

import math

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.moves import AnnealedPath, HamiltonianMove, RandomWalkMove, Rung, default_move, moved_along
from diffsampler.baseline.proposal import Proposal
from diffsampler.baseline.tempering import Annealed
from diffsampler.counted import CountedTarget
from diffsampler.log_z.resampling import systematic

STEP_SIZES = (1.0, 0.3, 0.1, 0.03)  # times what suits a Gaussian of the points' covariance
NUM_LEAPFROG = 4
WALK_SIZE = 0.3


@torch.no_grad()
def wander(
    target: CountedTarget, proposal: Proposal, x: Tensor, log_weight: Tensor, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Resample weighted draws x of a proposal, with shape (m, D), move n of them, and evaluate them: (n, D) and (n).

    Were the draws the target's, these would be too. Short moves leave the region of the draws where it was too narrow,
    which importance weights cannot tell.
    """
    move = HamiltonianMove(NUM_LEAPFROG) if target.differentiable else RandomWalkMove()
    start = x[systematic(log_weight, n, generator)]
    factor, size = GaussianComponents.fitted_to(start).factor[0], move.initial_step_size(x.shape[1])
    rungs = [Rung(1.0, factor, step_size * size, WALK_SIZE) for step_size in STEP_SIZES]
    *_, end = moved_along(AnnealedPath(target, proposal, move), start, rungs, generator)
    return end.x, end.log_prob


@torch.no_grad()
def more_draws(target: CountedTarget, found: Annealed, n: int, generator: torch.Generator) -> Tensor:
    """n points: the draws of an annealed estimate, and where further moves take them, with shape (n, D)."""
    x = found.resampled(min(n, len(found.x)), generator)
    rung = found.ladder[-1] if found.ladder else Rung(1.0, GaussianComponents.fitted_to(x).factor[0], 0.5)
    path = AnnealedPath(target, found.prior, default_move(target)[0])
    return torch.cat([one.x for one in moved_along(path, x, [rung] * math.ceil(n / len(x)), generator)])[-n:]
