"""How well a sampler of simulations knows fresh ones: what is left to validate by where no density is known."""

from dataclasses import replace

import torch
from torch import Tensor

from diffsampler.families.contexts import draw_jointly
from diffsampler.paths import evaluate, rollback
from diffsampler.sampler import Sampler


def held_out_log_likelihood(sampler: Sampler, n: int, generator: torch.Generator) -> Tensor:
    """Of n fresh simulations, with shape (n), each by one walk back: a lower bound in the mean."""
    return log_likelihood_by_one_walk(sampler, *draw_jointly(sampler.family, n, generator), generator)


@torch.no_grad()
def log_likelihood_by_one_walk(sampler: Sampler, x: Tensor, context: Tensor, generator: torch.Generator) -> Tensor:
    """log (prior P_F / P_B) of a walk back from each of n pairs, with shape (n); the mean ratio is q(x | c).

    log q(x | c) >= E log (prior P_F / P_B), by Jensen; with equality where the two kernels undo each other.
    """
    dynamics = sampler.dynamics
    path = rollback(dynamics, dynamics.states_at(torch.cat([x, context], -1), generator), generator)
    unknown = torch.zeros(1, len(x), dtype=torch.float64, device=path.x.device)  # what the target would say
    found = -evaluate(dynamics, replace(path, log_prob=unknown), with_flow=False).log_weight
    if sampler.coordinates is None:
        return found
    return found - sampler.coordinates.log_volume(sampler.policy.process.position(path.x[-1])).to(found)
