"""Coordinates of a reward on the draws of a sampler that has some."""

import torch
from torch import Tensor

from diffsampler.coordinates.base import Coordinates
from diffsampler.spaces import Space


class RewardCoordinates(Coordinates):
    """z of a pretrained sampler: a reward of x is a reward of z, not a density that a change of variables stretches.

    Arguments:
        coordinates: the sampler's.
    """

    def __init__(self, coordinates: Coordinates) -> None:
        super().__init__(coordinates.dim, coordinates.target_dim)
        self.coordinates = coordinates
        self.precise = coordinates.precise

    @property
    def space(self) -> Space:
        return self.coordinates.space

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.coordinates(z)
        return x, torch.zeros_like(log_det)

    def inverse(self, x: Tensor) -> Tensor:
        return self.coordinates.inverse(x)

    def log_volume(self, z: Tensor) -> Tensor:
        return self.coordinates.log_volume(z)
