"""What a space is."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import check_count
from diffsampler.spaces.kernels import Kernel

Symmetry = Callable[[Tensor, torch.Generator | None], Tensor]


class Space(ABC):
    """Where states with shape (*, D) live.

    Arguments:
        dim: the dimension D.

    Attributes:
        is_euclidean: whether it is R^D, where linear functions of states make sense.
        is_periodic: whether every coordinate is an angle.
    """

    is_euclidean: bool = False
    is_periodic: bool = False

    def __init__(self, dim: int) -> None:
        self.dim = check_count("dim", dim)

    @property
    def angles(self) -> Tensor:
        """Which coordinates are angles, with shape (D)."""
        return torch.full((self.dim,), self.is_periodic, device="cpu")

    @property
    def target_dim(self) -> int:
        """The dimension of x, the target's own coordinates, that states stand for."""
        return self.dim

    def to_target(self, z: Tensor) -> Tensor:
        """x, with shape (*, target_dim), for states z with shape (*, D); an isometry."""
        return z

    def from_target(self, x: Tensor) -> Tensor:
        """The states of points x, with shape (*, target_dim)."""
        return x

    @property
    def symmetries(self) -> dict[str, Symmetry]:
        """What leaves a density on this space unchanged, by what is done: random maps of points (n, target_dim)."""
        return {}

    def image(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Points x, with shape (n, target_dim), moved at random by all symmetries, one after the other."""
        for symmetry in self.symmetries.values():
            x = symmetry(x, generator)
        return x

    @property
    def num_features(self) -> int:
        """F, of what networks see of a state."""
        return self.features(torch.zeros(self.dim)).shape[-1]

    @abstractmethod
    def kernel(self, mean: Tensor, std: Tensor) -> Kernel:
        """Noise of this standard deviation around means with shape (*, D)."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """What networks see of states with shape (*, D): functions on this space, with shape (*, F)."""

    @abstractmethod
    def features_of_each(self, x: Tensor, scale: Tensor) -> Tensor:
        """The same of each coordinate by itself, in units of a scale, with shape (*, D, f) for some f."""

    def wrap(self, x: Tensor) -> Tensor:
        """The same points by their usual names: angles within one turn, say."""
        return x

    def seen_from(self, x: Tensor, end: Tensor, std: Tensor) -> Tensor:
        """Where points lie from which noise has led to x, all with shape (*, D); of angles, in the mean over all turns.

        The standard deviation broadcasts against them, and is positive for angles.
        """
        return end

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dim})"
