"""How far a sampler's draws are from a reference, by the metrics that fit its target."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import warn_of
from diffsampler.observables import energy
from diffsampler.report.metrics import energy_wasserstein2
from diffsampler.report.noise_floor import DistanceWithFloor, with_floor
from diffsampler.report.particle_metrics import aligned_wasserstein2, pair_distance_total_variation
from diffsampler.spaces import Particles
from diffsampler.target import Target

# The second squared is how many configurations are aligned: 10 microseconds each for 13 particles, 160 for 55.
MAX_DRAWS, MAX_ALIGNED = 2000, 300


@torch.no_grad()
def distances_of_target(
    target: Target, x: Tensor, log_weight: Tensor, reference: Tensor, generator: torch.Generator | None = None
) -> dict[str, DistanceWithFloor]:
    """By name: `energy_wasserstein2`, and of `Particles` also those of `diffsampler.report.particle_metrics`.

    What has failed is left out, after a warning.

    Arguments:
        target: the density.
        x: independent draws, with shape (n, D).
        log_weight: their log importance weights, with shape (n).
        reference: draws of the target, with shape (m, D).
        generator: of resampling and halving.
    """
    of_target, space = energy(target), target.space
    metrics: dict[str, tuple[Callable[[Tensor, Tensor], float], int]] = {
        "energy_wasserstein2": (lambda a, b: energy_wasserstein2(of_target(a), of_target(b)), MAX_DRAWS)
    }
    if isinstance(space, Particles):
        metrics["pair_distance_total_variation"] = (
            lambda a, b: pair_distance_total_variation(a, b, space),
            MAX_DRAWS,
        )
        metrics["aligned_wasserstein2"] = (lambda a, b: aligned_wasserstein2(a, b, space), MAX_ALIGNED)
    found = {}
    for name, (metric, max_draws) in metrics.items():
        try:
            found[name] = with_floor(metric, x, log_weight, reference, generator, max_draws)
        except Exception as error:
            warn_of(f"{name.replace('_', ' ')} has failed, and the report goes without", error)
    return found
