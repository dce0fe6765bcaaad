"""Coordinates that go anywhere, of a target that declares where its density is not zero."""

import torch
from torch import Tensor

from diffsampler.coordinates.affine import AffineCoordinates
from diffsampler.target import Target, support_of

__all__ = ["SupportCoordinates"]


class SupportCoordinates(AffineCoordinates):
    """x = T(y), y = loc + matrix z, where T is the map from R^D onto `target.support`; y = z at first.

    Arguments:
        target: its dimension and its support count. Where it declares none, x = y.

    Attributes:
        onto: T, None where x = y.
    """

    precise = True

    def __init__(self, target: Target) -> None:
        super().__init__(torch.zeros(target.dim), torch.eye(target.dim))
        self.onto = support_of(target)

    @property
    def is_affine(self) -> bool:
        """Whether x is an affine function of z."""
        return self.onto is None

    def to_y(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """y and log |det dy/dz|, with shapes (*, D) and (*), for z with shape (*, D), in float64."""
        return AffineCoordinates.forward(self, z)

    def from_y(self, y: Tensor) -> Tensor:
        """z, with shape (*, D), for y with shape (*, D), in float64."""
        return AffineCoordinates.inverse(self, y)

    def score_from_y(self, z: Tensor, score: Tensor) -> Tensor:
        """The gradient in z of a density of which `score` is the gradient in y, both with shape (*, D)."""
        return AffineCoordinates.score_of(self, z, score)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_affine:
            return super().forward(z)
        x, log_det = self.to_y(z.double())
        if self.onto is None:
            return x.to(z.dtype), log_det
        x, stretched = self.onto.forward(x)
        return self.onto.inside(x.to(z.dtype)), log_det + stretched

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        if self.onto is None:
            return self.score_from_y(z, score)
        y, _ = self.to_y(z.double())
        return self.score_from_y(z, self.onto.score_of(y, score.double()).to(z.dtype))

    def inverse(self, x: Tensor) -> Tensor:
        if self.is_affine:
            return super().inverse(x)
        y = x.double() if self.onto is None else self.onto.inverse(self.onto.inside(x).double())
        return self.from_y(y).to(x.dtype)
