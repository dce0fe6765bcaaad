"""Coordinates of a reward on the draws of a sampler that has some."""

import torch
from torch import Tensor

from diffsampler.coordinates.base import Coordinates
from diffsampler.coordinates.fixed import FixedCoordinates
from diffsampler.target import Target


class RewardCoordinates(FixedCoordinates):
    """z of a pretrained sampler: a reward of x is a reward of z, not a density that a change of variables stretches."""

    def move_to(self, target: Target) -> None:
        """Nothing: another reward is one on the same draws, whose density declares what there is to declare."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.coordinates(z)
        return x, torch.zeros_like(log_det)

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        return Coordinates.score_of(self, z, score)
