"""Angles have no mean; their directions have."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.observables.base import Observable, columns


class Angles(Observable):
    """The mean directions of angles, arg E[exp(i phi)], in (-pi, pi].

    A pair of them is drawn as a map of its free energy: of the torsions phi and psi that is the Ramachandran map.

    References:
        Directional Statistics, Mardia & Jupp, 2000, section 2.2.

    Arguments:
        f: the angles of x, in radians, with shape (n) or (n, k), for x with shape (n, D).
        names: one for each angle, for figures.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], names: tuple[str, ...] = ("phi", "psi")) -> None:
        self.f = f
        self.names = tuple(names)

    def __call__(self, x: Tensor) -> Tensor:
        angles = self.angles(x)
        return torch.cat([angles.sin(), angles.cos()], -1)

    def angles(self, x: Tensor) -> Tensor:
        """With shape (n, k), in [-pi, pi)."""
        angles = columns(self.f(x), len(x))
        return torch.remainder(angles + torch.pi, 2 * torch.pi) - torch.pi

    def of_means(self, means: Tensor) -> Tensor:
        sine, cosine = means.chunk(2)
        direction = torch.atan2(sine, cosine)
        return direction.squeeze(0) if len(direction) == 1 else direction
