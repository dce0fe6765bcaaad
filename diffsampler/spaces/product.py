"""Several spaces at once: angles and reals, say."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from diffsampler.errors import check_instance
from diffsampler.spaces.base import Space, Symmetry
from diffsampler.spaces.kernels import ProductKernel


class Product(Space):
    """States whose first coordinates live in the first space, the next in the second, and so on.

    Of x too: particles take as many of its coordinates as they have, with their centre.

    Arguments:
        spaces: in the order of their coordinates.
    """

    def __init__(self, spaces: Sequence[Space]) -> None:
        self.spaces = [check_instance("spaces", space, Space, "Circle(2)") for space in spaces]
        super().__init__(sum(space.dim for space in self.spaces))
        self.is_euclidean = all(space.is_euclidean for space in spaces)
        self.is_periodic = all(space.is_periodic for space in spaces)

    @property
    def angles(self) -> Tensor:
        return torch.cat([space.angles for space in self.spaces])

    @property
    def target_dim(self) -> int:
        return sum(space.target_dim for space in self.spaces)

    def to_target(self, z: Tensor) -> Tensor:
        return torch.cat([space.to_target(part) for space, part in self._parts(z)], -1)

    def from_target(self, x: Tensor) -> Tensor:
        parts = zip(self.spaces, self._split_target(x), strict=True)
        return torch.cat([space.from_target(part) for space, part in parts], -1)

    def kernel(self, mean: Tensor, std: Tensor) -> ProductKernel:
        stds = self._split(std.expand(*std.shape[:-1], self.dim) if std.ndim else std.expand(self.dim))
        parts = zip(self.spaces, self._split(mean), stds, strict=True)
        return ProductKernel([space.kernel(*moments) for space, *moments in parts])

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([space.features(part) for space, part in self._parts(x)], -1)

    def features_of_each(self, x: Tensor, scale: Tensor) -> Tensor:
        units = self._split(scale.expand(self.dim))
        found = [space.features_of_each(part, unit) for (space, part), unit in zip(self._parts(x), units, strict=True)]
        widest = max(one.shape[-1] for one in found)
        return torch.cat([pad(one, (0, widest - one.shape[-1])) for one in found], -2)

    def wrap(self, x: Tensor) -> Tensor:
        return torch.cat([space.wrap(part) for space, part in self._parts(x)], -1)

    def seen_from(self, x: Tensor, end: Tensor, std: Tensor) -> Tensor:
        parts = zip(self.spaces, *(self._split(one.expand_as(x)) for one in (x, end, std)), strict=True)
        return torch.cat([space.seen_from(*of_it) for space, *of_it in parts], -1)

    @property
    def symmetries(self) -> dict[str, Symmetry]:
        found: dict[str, Symmetry] = {}
        for k, space in enumerate(self.spaces):
            for what in space.symmetries:
                found[what] = partial(self._moved, [*found[what].args[0], k] if what in found else [k], what)
        return found

    def _moved(self, which: list[int], what: str, x: Tensor, generator: torch.Generator | None) -> Tensor:
        parts = list(self._split_target(x))
        for k in which:
            parts[k] = self.spaces[k].symmetries[what](parts[k], generator)
        return torch.cat(parts, -1)

    def _parts(self, x: Tensor) -> Iterator[tuple[Space, Tensor]]:
        return zip(self.spaces, self._split(x), strict=True)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split([space.dim for space in self.spaces], -1)

    def _split_target(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split([space.target_dim for space in self.spaces], -1)

    def __repr__(self) -> str:
        return f"Product({self.spaces})"
