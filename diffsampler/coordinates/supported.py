"""Coordinates that go anywhere, of a target that declares where its density is not zero."""

import torch
from torch import Tensor

from diffsampler.coordinates.affine import AffineCoordinates
from diffsampler.support import score_through
from diffsampler.target import Target, support_of


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

    def move_to(self, target: Target) -> None:
        super().move_to(target)
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

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_affine:
            return super().forward(z)
        x, log_det = self._precisely(z)
        x = x.to(z.dtype)
        return x if self.onto is None else self.onto.inside(x), log_det

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        return super().score_of(z, score) if self.is_affine else score_through(self._precisely, z, score)

    def inverse(self, x: Tensor) -> Tensor:
        if self.is_affine:
            return super().inverse(x)
        y = x.double() if self.onto is None else self.onto.inverse(self.onto.inside(x).double())
        return self.from_y(y).to(x.dtype)

    def _precisely(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.to_y(z.double())
        if self.onto is None:
            return y, log_det
        x, stretched = self.onto.forward(y)
        return x, log_det + stretched
