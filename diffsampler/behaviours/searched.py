"""Paths rolled back from the points that a search has found."""

import torch

from diffsampler.behaviours.base import Behaviour
from diffsampler.coordinates import SearchedCoordinates
from diffsampler.errors import InputError
from diffsampler.paths import Dynamics, Path, rollback

__all__ = ["SearchedPoints"]


class SearchedPoints(Behaviour):
    """Paths rolled back from the draws that `SearchedCoordinates` were found by; no target evaluation."""

    backward = True

    def check(self, dynamics: Dynamics) -> None:
        self._coordinates(dynamics)

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        coordinates = self._coordinates(dynamics)
        if not coordinates.is_found:
            raise InputError("SearchedPoints has no points yet: call sampler.search(seed=0), as fit does.")
        rows = torch.randint(len(coordinates.points), (n,), generator=generator, device=coordinates.points.device)
        return rollback(dynamics, dynamics.states_at(coordinates.points[rows], generator), generator)

    @staticmethod
    def _coordinates(dynamics: Dynamics) -> SearchedCoordinates:
        for part in dynamics.target.density.modules():
            if isinstance(part, SearchedCoordinates):
                return part
        raise InputError("SearchedPoints needs coordinates=SearchedCoordinates, whose search finds the points.")
