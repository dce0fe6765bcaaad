"""How wide a mode is, whatever its shape: a few Metropolis walkers from each."""

import torch
from torch import Tensor

from diffsampler.baseline.components import cholesky
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.spaces.kernels import noise_like, uniform_like

NUM_WALKERS, NUM_STAGES, STEPS_A_STAGE = 16, 4, 12
TARGET_ACCEPTANCE = 0.3


def spread_out(target: CountedTarget, x: Tensor, factor: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Means and covariances of walkers from points x of finite density, with shapes (K, D) and (K, D, D).

    They begin with a factor of a guess at the covariance around each, with shape (K, D, D). Steps adapt to each point,
    their directions too, after every stage: edges, corners and flat tops are all alike.
    """
    num, dim = x.shape
    here = x.unsqueeze(1).expand(num, NUM_WALKERS, dim).clone()
    value = or_zero_density(target.log_prob(x)).unsqueeze(1).expand(num, NUM_WALKERS).clone()
    size = torch.full((num, 1, 1), 2.4 / dim**0.5, dtype=x.dtype, device=x.device)
    for stage in range(NUM_STAGES):
        visited = []
        for _ in range(STEPS_A_STAGE):
            # Sizes of several orders of magnitude at first: a guess from curvature may be off by as much.
            spread = noise_like(here[..., :1], generator) * (3.0 if stage == 0 else 0.5)
            trial = here + size * spread.exp() * (noise_like(here, generator) @ factor.mT)
            trial_value = or_zero_density(target.log_prob(trial))
            chance = (trial_value - value).nan_to_num(-torch.inf).clamp(max=0).exp()
            accepted = uniform_like(here[..., 0], generator) < chance
            here = torch.where(accepted.unsqueeze(-1), trial, here)
            value = torch.where(accepted, trial_value, value)
            size = size * (accepted.double().mean(1) - TARGET_ACCEPTANCE).exp().to(x)[:, None, None]
            visited.append(here)
        points = torch.cat(visited, 1)
        loc, covariance = points.mean(1), _covariance(points)
        found, usable = cholesky(covariance)
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
