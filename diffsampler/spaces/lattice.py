"""Fields on a periodic lattice."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count
from diffsampler.spaces.base import Space, Symmetry
from diffsampler.spaces.circle import Circle
from diffsampler.spaces.euclidean import Euclidean
from diffsampler.spaces.kernels import Kernel


class Lattice(Space):
    """C fields at every site of a periodic lattice; states are (C, L_1, ..., L_k), flattened.

    The density does not change when all fields are shifted along the lattice.

    Arguments:
        shape: (L_1, ..., L_k).
        site: where the fields of one site live: `Euclidean(C)`, by default with C = 1, or `Circle(C)`.
    """

    def __init__(self, shape: Sequence[int], site: Space | None = None) -> None:
        if not hasattr(shape, "__len__") or not len(shape):
            raise InputError(f"shape must be the numbers of sites, such as (6, 6), got {shape!r}.")
        self.shape = tuple(check_count("shape", size) for size in shape)
        self.site = Euclidean(1) if site is None else site
        if type(self.site) not in (Euclidean, Circle):
            raise InputError(f"site must be Euclidean(C) or Circle(C), got {site!r}.")
        super().__init__(self.site.dim * math.prod(self.shape))
        self.is_euclidean, self.is_periodic = self.site.is_euclidean, self.site.is_periodic

    def kernel(self, mean: Tensor, std: Tensor) -> Kernel:
        return self.site.kernel(mean, std)

    def features(self, x: Tensor) -> Tensor:
        return self.site.features(x)

    def features_of_each(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.site.features_of_each(x, scale)

    def wrap(self, x: Tensor) -> Tensor:
        return self.site.wrap(x)

    def seen_from(self, x: Tensor, end: Tensor, std: Tensor) -> Tensor:
        return self.site.seen_from(x, end, std)

    def fields(self, x: Tensor) -> Tensor:
        """With shape (*, C, L_1, ..., L_k), for states with shape (*, D)."""
        return x.unflatten(-1, (self.site.dim, *self.shape))

    def field_features(self, x: Tensor) -> Tensor:
        """What convolutions see of states with shape (*, D): functions at sites, with shape (*, F, L_1, ..., L_k)."""
        fields = self.fields(x).movedim(-len(self.shape) - 1, -1)
        return self.site.features(fields).movedim(-1, -len(self.shape) - 1)

    @property
    def symmetries(self) -> dict[str, Symmetry]:
        return {**self.site.symmetries, "all fields are shifted along the lattice": self._shifted}

    def _shifted(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        # Each point by itself: of one shift for all, one in V is none at all.
        fields, row = self.fields(x), torch.arange(len(x), device=x.device).unsqueeze(-1)
        for axis, size in enumerate(self.shape, start=2):
            shift = torch.randint(size, (len(x), 1), generator=generator, device=x.device)
            site = (torch.arange(size, device=x.device) + shift) % size
            fields = fields.movedim(axis, 1)[row, site].movedim(1, axis)
        return fields.flatten(1)

    def __repr__(self) -> str:
        return f"Lattice({self.shape}, {self.site!r})"
