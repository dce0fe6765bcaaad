"""Paths rolled back from points of the target that are known already, or that a search has found."""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from diffsampler.behaviours.base import Behaviour
from diffsampler.coordinates import FoundCoordinates
from diffsampler.errors import InputError
from diffsampler.paths import Dynamics, Path, rollback


class KnownPoints(Behaviour):
    """Paths rolled back from points that are there: who asks for end points alone gets no paths."""

    backward = True

    @abstractmethod
    def end_points(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor: ...

    def paths(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Path:
        return rollback(dynamics, self.end_points(dynamics, n, generator, progress), generator)


class ExpertSamples(KnownPoints):
    """Paths rolled back from points of the target: its exact samples, or points from a file.

    Arguments:
        file: a NumPy file (.npy) of points with shape (n, D), in the target's own coordinates; without one, fresh exact
            samples of the target.
    """

    def __init__(self, file: str | None = None) -> None:
        self.points: Tensor | None = None
        if file is not None:
            try:
                self.points = torch.as_tensor(np.load(file))
            except (OSError, ValueError) as error:
                raise InputError(f"file must be a .npy file of points, got {file!r}: {error}.") from error

    def check(self, dynamics: Dynamics) -> None:
        target = dynamics.target.density.user_target
        if self.points is None and not target.has_exact_samples:
            raise InputError(
                f"ExpertSamples needs points: {type(target).__name__} has no exact samples. Pass file=..., or use "
                "Replay with a local search."
            )
        if self.points is not None and (self.points.ndim != 2 or self.points.shape[1] != target.dim):
            raise InputError(f"file must hold points of dimension {target.dim}, got shape {tuple(self.points.shape)}.")

    def end_points(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor:
        if self.points is None:
            x = dynamics.target.density.user_target.sample(n, generator)
        else:
            rows = torch.randint(len(self.points), (n,), generator=generator, device=dynamics.policy.device)
            x = self.points[rows.cpu()]
        return dynamics.states_at(x.to(dynamics.policy.dtype), generator)


class SearchedPoints(KnownPoints):
    """Paths rolled back from the draws that coordinates were found by, but for those held out; no target evaluation.

    Where the target declares its space, each is moved at random by the symmetries of it first.
    """

    def check(self, dynamics: Dynamics) -> None:
        self._coordinates(dynamics)

    def end_points(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor:
        coordinates = self.found(dynamics)
        points = coordinates.points_to_learn
        rows = torch.randint(len(points), (n,), generator=generator, device=points.device)
        x = coordinates.image(points[rows], generator)
        return dynamics.states_at(x, generator)

    def found(self, dynamics: Dynamics) -> FoundCoordinates:
        """The coordinates, after their search."""
        coordinates = self._coordinates(dynamics)
        if not coordinates.is_found:
            raise InputError(f"{type(self).__name__} has no points yet: call sampler.search(seed=0), as fit does.")
        return coordinates

    @staticmethod
    def _coordinates(dynamics: Dynamics) -> FoundCoordinates:
        for part in dynamics.target.density.modules():
            if isinstance(part, FoundCoordinates):
                return part
        raise InputError("SearchedPoints needs coordinates=SearchedCoordinates, whose search finds the points.")
