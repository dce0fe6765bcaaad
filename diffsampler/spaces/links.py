"""U(1) gauge fields: an angle on every link of a periodic lattice."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.spaces.base import Symmetry
from diffsampler.spaces.circle import Circle
from diffsampler.spaces.kernels import noise_like
from diffsampler.spaces.lattice import Lattice


class Links(Lattice):
    """Angles theta_mu(x) on the links from site x in direction mu; states are (k, L_1, ..., L_k), flattened.

    The density does not change under gauge transformations, theta_mu(x) + alpha(x) - alpha(x + mu), for any alpha.
    Networks see plaquettes, which do not either.

    Arguments:
        shape: (L_1, ..., L_k), of at least two dimensions.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        if not hasattr(shape, "__len__") or len(shape) < 2:
            raise InputError(f"shape of links must have at least two dimensions, such as (8, 8), got {shape!r}.")
        super().__init__(shape, Circle(len(shape)))

    def plaquettes(self, x: Tensor) -> Tensor:
        """theta_mu(x) + theta_nu(x + mu) - theta_mu(x + nu) - theta_nu(x) for mu < nu, not wrapped.

        With shape (*, k (k - 1) / 2, L_1, ..., L_k).
        """
        links, k = self.fields(x), len(self.shape)
        theta = links.unbind(-k - 1)
        pairs = combinations(range(k), 2)
        around = [theta[a] + theta[b].roll(-1, a - k) - theta[a].roll(-1, b - k) - theta[b] for a, b in pairs]
        return torch.stack(around, -k - 1)

    def around(self, loops: Tensor) -> Tensor:
        """The transpose of `plaquettes`: what each link gets of the loops that it is part of, with shape (*, D)."""
        k = len(self.shape)
        of_links = [0.0] * k
        for (a, b), loop in zip(combinations(range(k), 2), loops.unbind(-k - 1), strict=True):
            of_links[a] = of_links[a] + loop - loop.roll(1, b - k)
            of_links[b] = of_links[b] + loop.roll(1, a - k) - loop
        return torch.stack(of_links, -k - 1).flatten(-k - 1)

    def field_features(self, x: Tensor) -> Tensor:
        loops = self.plaquettes(x)
        return torch.cat([loops.sin(), loops.cos()], -len(self.shape) - 1)

    def features(self, x: Tensor) -> Tensor:
        return self.field_features(x).flatten(-len(self.shape) - 1)

    @property
    def symmetries(self) -> dict[str, Symmetry]:
        return {**super().symmetries, "links are gauge transformed": self._gauge_transformed}

    def _gauge_transformed(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        k = len(self.shape)
        alpha = math.pi * noise_like(self.fields(x).select(-k - 1, 0), generator)
        changes = torch.stack([alpha - alpha.roll(-1, axis - k) for axis in range(k)], -k - 1)
        return (self.fields(x) + changes).flatten(-k - 1)

    def __repr__(self) -> str:
        return f"Links({self.shape})"
