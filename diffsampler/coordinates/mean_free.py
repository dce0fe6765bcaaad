"""Coordinates of particles that leave their centre out."""

import math

import torch
from torch import Tensor

from diffsampler.coordinates.base import Coordinates
from diffsampler.errors import InputError, check_positive
from diffsampler.spaces import Particles
from diffsampler.target import Target, space_of


class MeanFreeCoordinates(Coordinates):
    """x = scale H^T z: n particles in R^d with their mean at 0, from z in R^((n - 1) d).

    The rows of H are orthonormal (`Particles`), and log |det| = (n - 1) d log scale: log Z is that of configurations of
    mean 0. The inverse drops the mean of x.

    Arguments:
        target: declares `Particles` as its space.
        scale: the unit of z: positive.

    Raises:
        InputError: if the target declares another space, or none.
    """

    def __init__(self, target: Target, scale: float = 1.0) -> None:
        space = space_of(target)
        if not isinstance(space, Particles):
            raise InputError(
                f"MeanFreeCoordinates are for a target whose space is Particles, got {type(target).__name__} on "
                f"{space!r}: say FunctionTarget(fn, dim, mean_free=n), or space = Particles(n, d) in its class."
            )
        super().__init__(space.dim, space.target_dim)
        self.scale = float(check_positive("scale", scale))
        self._space = space

    @property
    def space(self) -> Particles:
        return self._space

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_full(z.shape[:-1], self.dim * math.log(self.scale), dtype=torch.float64)
        return self.scale * self.space.to_target(z), log_det

    def inverse(self, x: Tensor) -> Tensor:
        return self.space.from_target(x) / self.scale

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        return self.scale * self.space.from_target(score)
