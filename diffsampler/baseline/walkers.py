"""How wide a mode is, whatever its shape: a few Metropolis walkers from each."""

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density

__all__ = ["spread_out"]

NUM_WALKERS, NUM_STAGES, STEPS_A_STAGE = 16, 4, 12
TARGET_ACCEPTANCE = 0.3


def spread_out(
    target: CountedTarget, x: Tensor, factor: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Means and covariances of walkers from K points, with shapes (K, D) and (K, D, D).

    Steps adapt to each point, their directions too, after every stage: edges, corners and flat tops are all alike.

    Arguments:
        target: the density.
        x: points of finite density, with shape (K, D).
        factor: of a first guess at the covariance around each, with shape (K, D, D).
        generator: the source of all noise.
    """
    num, dim = x.shape
    options = {"generator": generator, "dtype": x.dtype, "device": x.device}
    here = x.unsqueeze(1).expand(num, NUM_WALKERS, dim).clone()
    value = or_zero_density(target.log_prob(x)).unsqueeze(1).expand(num, NUM_WALKERS).clone()
    size = torch.full((num, 1, 1), 2.4 / dim**0.5, dtype=x.dtype, device=x.device)
    for stage in range(NUM_STAGES):
        visited = []
        for _ in range(STEPS_A_STAGE):
            # Sizes of several orders of magnitude at first: a guess from curvature may be off by as much.
            spread = torch.randn(num, NUM_WALKERS, 1, **options) * (3.0 if stage == 0 else 0.5)
            trial = here + size * spread.exp() * (torch.randn(num, NUM_WALKERS, dim, **options) @ factor.mT)
            trial_value = or_zero_density(target.log_prob(trial.reshape(-1, dim))).view(num, NUM_WALKERS)
            chance = (trial_value - value).nan_to_num(-torch.inf).clamp(max=0).exp()
            accepted = torch.rand(num, NUM_WALKERS, **options) < chance
            here = torch.where(accepted.unsqueeze(-1), trial, here)
            value = torch.where(accepted, trial_value, value)
            size = size * (accepted.double().mean(1) - TARGET_ACCEPTANCE).exp().to(x)[:, None, None]
            visited.append(here)
        points = torch.cat(visited, 1)
        loc, covariance = points.mean(1), _covariance(points)
        found, info = torch.linalg.cholesky_ex(covariance)
        usable = (info == 0) & found.isfinite().all(-1).all(-1)
        # From a shape of the walkers' own the right size is that of any Gaussian.
        size = torch.where(usable[:, None, None], torch.full_like(size, 2.4 / dim**0.5), size)
        factor = torch.where(usable[:, None, None], found, factor)
    return loc, factor @ factor.mT


def _covariance(points: Tensor) -> Tensor:
    """Of each group of points, with shape (K, D, D); shrunk a little, since walkers are few."""
    centred = points - points.mean(1, keepdim=True)
    covariance = centred.mT @ centred / points.shape[1]
    diagonal = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    return 0.9 * covariance + 0.1 * diagonal
