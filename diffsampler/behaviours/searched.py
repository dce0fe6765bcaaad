"""Paths rolled back from the points that a search has found."""

from typing import TYPE_CHECKING

import torch

from diffsampler.behaviours.base import Behaviour
from diffsampler.coordinates import SearchedCoordinates
from diffsampler.errors import InputError
from diffsampler.trajectory import Path

if TYPE_CHECKING:
    from diffsampler.sampler import Sampler

__all__ = ["SearchedPoints"]


class SearchedPoints(Behaviour):
    """Paths rolled back from the draws that `SearchedCoordinates` were found by; no target evaluation."""

    backward = True

    def check(self, sampler: "Sampler") -> None:
        if not isinstance(sampler.coordinates, SearchedCoordinates):
            raise InputError("SearchedPoints needs coordinates=SearchedCoordinates, whose search finds the points.")

    def paths(self, sampler: "Sampler", n: int, generator: torch.Generator, progress: float) -> Path:
        coordinates = sampler.coordinates
        if not coordinates.is_found:
            raise InputError("SearchedPoints has no points yet: call sampler.search(seed=0), as fit does.")
        rows = torch.randint(len(coordinates.points), (n,), generator=generator, device=coordinates.points.device)
        return sampler.rollback(coordinates.points[rows], generator)
