"""Where a density is walked in: frames, which say what a state z is in the target's own coordinates x."""

from typing import Protocol

import torch
from torch import Tensor

from diffsampler.density import Density, DerivedDensity
from diffsampler.errors import InputError
from diffsampler.parts import make_part
from diffsampler.spaces import Space
from diffsampler.target import Target, space_of


class Frame(Protocol):
    """What `Coordinates` are, and the plain image of a space: a smooth map from z to x, one to one."""

    dim: int
    target_dim: int
    precise: bool

    @property
    def space(self) -> Space:
        """Where z lives."""

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dz|, with shapes (*, D) and (*), for z with shape (*, d)."""

    def inverse(self, x: Tensor) -> Tensor:
        """z, with shape (*, d), for x with shape (*, D)."""

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        """The gradient in z of a density of which `score` is the gradient in x, that of log |det dx/dz| with it."""


class SpaceFrame:
    """The isometric image of a space that a target declares.

    Arguments:
        space: of z.
    """

    precise = False

    def __init__(self, space: Space) -> None:
        self.space, self.dim, self.target_dim = space, space.dim, space.target_dim

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.space.to_target(z), z.new_zeros(z.shape[:-1], dtype=torch.float64)

    def inverse(self, x: Tensor) -> Tensor:
        return self.space.wrap(self.space.from_target(x))

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        return self.space.from_target(score)


def frame_of(target: Target) -> Frame:
    """The coordinates that a target declares, or else the image of its space."""
    if target.coordinates is None:
        return SpaceFrame(space_of(target))
    return make_part(f"coordinates of {type(target).__name__}", target.coordinates, torch.nn.Module, target)


class DensityInCoordinates(DerivedDensity):
    """A density of x as one of z: log R(x(z)) + log |det dx/dz|; same normalising constant."""

    def __init__(self, inner: Density | Target, coordinates: Frame) -> None:
        if coordinates.target_dim != inner.dim:
            raise InputError(f"coordinates must have the target's dimension {inner.dim}, got {coordinates.target_dim}.")
        super().__init__(inner, coordinates.dim)
        self.coordinates = coordinates

    def from_user(self, x: Tensor) -> Tensor:
        return self.coordinates.inverse(self.inner.from_user(x))

    def to_user(self, x: Tensor) -> tuple[Tensor, Tensor]:
        point, log_det = self.coordinates(self._precisely(x))
        point, log_volume = self.inner.to_user(point)
        return point, log_volume + log_det

    def value(self, x: Tensor) -> Tensor:
        point, log_det = self.coordinates(self._precisely(x))
        return self.inner.value(point) + log_det

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self._precisely(x)
        point, log_det = self.coordinates(z)
        log_prob, score = self.inner.value_and_score(point)
        return log_prob + log_det, self.coordinates.score_of(z, score)

    def _precisely(self, z: Tensor) -> Tensor:
        return z.double() if self.coordinates.precise else z


class DensityOfReals(DerivedDensity):
    """The density of those states' coordinates that are no angles, where these are kept.

    Arguments:
        inner: the density.
        space: of its points.
        x: a point with shape (D), whose angles are kept.
    """

    def __init__(self, inner: Density, space: Space, x: Tensor) -> None:
        is_real = ~space.angles.to(x.device)
        super().__init__(inner, int(is_real.sum()))
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("is_real", is_real, persistent=False)

    def value(self, x: Tensor) -> Tensor:
        return self.inner.value(self._beside(x))

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, score = self.inner.value_and_score(self._beside(x))
        return log_prob, score[..., self.is_real]

    def _beside(self, x: Tensor) -> Tensor:
        point = self.x.to(x.dtype).expand(*x.shape[:-1], -1).clone()
        point[..., self.is_real] = x
        return point
