"""Distances between draws and a reference, beside those between two halves of the reference: what noise alone makes."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from diffsampler.density import or_zero_density
from diffsampler.errors import InputError, check_count
from diffsampler.log_z.resampling import systematic


@dataclass(frozen=True)
class DistanceWithFloor:
    """How far draws are from a reference.

    Attributes:
        value: between the draws as they come and one half of the reference.
        weighted: the same of draws resampled by their weights.
        floor: between two independent halves of the reference: what draws of the target itself have.
        num_draws: in each of these sets.
    """

    value: float
    weighted: float
    floor: float
    num_draws: int

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON; numbers that it has no word for become None."""
        return {name: one if math.isfinite(one) else None for name, one in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.value:.4g}, weighted {self.weighted:.4g}, floor {self.floor:.2g} ({self.num_draws} draws)"


def with_floor(
    metric: Callable[[Tensor, Tensor], float],
    x: Tensor,
    log_weight: Tensor,
    reference: Tensor,
    generator: torch.Generator | None = None,
    max_draws: int = 2000,
) -> DistanceWithFloor:
    """A distance of weighted draws from a reference, and its noise floor.

    Arguments:
        metric: of two sets of equally weighted points, of which it may be told equally many.
        x: independent draws, with shape (n, D).
        log_weight: their log importance weights, with shape (n); what is not finite counts as zero.
        reference: draws of the target, in any order, with shape (m, D); the floor is one as far as they are
            independent.
        generator: of resampling, and of which half a draw of the reference is in.
        max_draws: in each set.

    Raises:
        InputError: if there are fewer than 4 draws of the reference, or no weight is positive.
    """
    if len(reference) < 4 or not len(x):
        raise InputError(f"a noise floor takes at least 4 draws of the reference, got {len(reference)}.")
    n = min(len(x), len(reference) // 2, check_count("max_draws", max_draws))
    order = torch.randperm(len(reference), generator=generator, device=_device_of(generator)).to(reference.device)
    first, second = reference[order[:n]].to(x), reference[order[n : 2 * n]].to(x)
    log_weight = or_zero_density(log_weight.double())
    if log_weight.isneginf().all():
        raise InputError(f"none of {len(x)} draws has a usable density.")
    resampled = x[systematic(log_weight, n, generator)]
    return DistanceWithFloor(metric(x[:n], first), metric(resampled, first), metric(first, second), n)


def _device_of(generator: torch.Generator | None) -> torch.device | str:
    return "cpu" if generator is None else generator.device
