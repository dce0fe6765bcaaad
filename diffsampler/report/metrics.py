"""How near a sampler is to a target of which there are draws: numbers that no sampler can compute by itself."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.paths import rolled_back_log_weight
from diffsampler.sampler import Sampler


def wasserstein2(x: Tensor, y: Tensor) -> float:
    """The 2-Wasserstein distance of two sets of points, each with shape (n, D), by optimal assignment: O(n^3).

    Raises:
        InputError: if the shapes differ.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise InputError(f"x and y must have one shape (n, D), got {tuple(x.shape)} and {tuple(y.shape)}.")
    cost = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist").square().cpu().numpy()
    return float(cost[linear_sum_assignment(cost)].mean() ** 0.5)


def energy_wasserstein2(energy: Tensor, reference: Tensor) -> float:
    """The 2-Wasserstein distance of two sets of numbers, each with shape (n): of the sorted ones, pair by pair.

    One draw of a very high energy decides it: compare with its noise floor (`with_floor`).

    Raises:
        InputError: if there are not equally many, or none.
    """
    if energy.shape != reference.shape or energy.ndim != 1 or not len(energy):
        raise InputError(
            f"energy and reference must have one shape (n), got {tuple(energy.shape)} and {tuple(reference.shape)}."
        )
    difference = energy.double().sort().values - reference.to(energy.device).double().sort().values
    return float(difference.square().mean() ** 0.5)


def eubo(
    sampler: Sampler, num_samples: int = 2000, generator: torch.Generator | None = None, batch_size: int = 2000
) -> float:
    """The evidence upper bound: the mean log-weight of trajectories rolled back from exact samples.

    ELBO <= log Z <= EUBO in expectation. A mode that the sampler has lost shows here, and nowhere in ELBO or ESS.

    Raises:
        InputError: if the target has no exact samples.
    """
    target = sampler.target
    if not target.has_exact_samples:
        raise InputError(f"The EUBO needs exact samples, and {type(target).__name__} has none.")
    draws = target.sample(num_samples, generator)
    return float(rolled_back_log_weight(sampler.dynamics, draws, generator, batch_size).mean())
