"""Where moves lead that leave the target unchanged: past the edge of what a proposal draws, if the target goes on."""

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.moves import AnnealedPath, HamiltonianMove, PriorMove, RandomWalkMove, Rung
from diffsampler.baseline.proposal import Proposal
from diffsampler.counted import CountedTarget
from diffsampler.log_z.resampling import systematic

__all__ = ["wander"]

STEP_SIZES = (1.0, 0.3, 0.1, 0.03)  # times what suits a Gaussian of the points' covariance
NUM_LEAPFROG = 4
WALK_SIZE = 0.3


@torch.no_grad()
def wander(
    target: CountedTarget,
    proposal: Proposal,
    x: Tensor,
    log_weight: Tensor,
    n: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Resample weighted draws, and move them.

    Were the draws the target's, these would be too. Short moves leave the region of the draws where it was too narrow,
    which importance weights cannot tell.

    Arguments:
        target: the density.
        proposal: what the draws came from.
        x: draws, with shape (m, D).
        log_weight: their log importance weights, with shape (m).
        n: how many to move.
        generator: the source of all noise.

    Returns:
        The points, with shape (n, D), and the target's log_prob there, with shape (n).
    """
    move = HamiltonianMove(NUM_LEAPFROG) if target.differentiable else RandomWalkMove()
    path, prior_move = AnnealedPath(target, proposal, move), PriorMove()
    particles = path.at(x[systematic(log_weight, n, generator)])
    factor = GaussianComponents.fitted_to(particles.x).factor[0]
    size = move.initial_step_size(x.shape[1])
    for step_size in STEP_SIZES:
        rung = Rung(1.0, factor, step_size * size, WALK_SIZE)
        particles, _ = prior_move.apply(path, particles, rung, generator)
        particles, _ = move.apply(path, particles, rung, generator)
    return particles.x, particles.log_prob
