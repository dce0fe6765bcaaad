"""Coordinates that have been found, as they are: nothing searches them again."""

from torch import Tensor

from diffsampler.coordinates.base import Coordinates
from diffsampler.spaces import Space
from diffsampler.support import Support
from diffsampler.target import Target


class FixedCoordinates(Coordinates):
    """The coordinates of another sampler, whatever they rest on.

    Arguments:
        coordinates: the other's.
    """

    def __init__(self, coordinates: Coordinates) -> None:
        super().__init__(coordinates.dim, coordinates.target_dim)
        self.coordinates = coordinates
        self.precise = coordinates.precise

    @property
    def space(self) -> Space:
        return self.coordinates.space

    @property
    def onto(self) -> Support | None:
        return self.coordinates.onto

    def move_to(self, target: Target) -> None:
        self.coordinates.move_to(target)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.coordinates(z)

    def inverse(self, x: Tensor) -> Tensor:
        return self.coordinates.inverse(x)

    def log_volume(self, z: Tensor) -> Tensor:
        return self.coordinates.log_volume(z)

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        return self.coordinates.score_of(z, score)
