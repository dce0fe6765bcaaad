"""Independent priors side by side."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from diffsampler.priors.base import Prior
from diffsampler.spaces import Product


class ProductPrior(Prior):
    """The first coordinates from the first prior, the next from the second, and so on.

    Arguments:
        priors: in the order of their coordinates.
    """

    def __init__(self, priors: Sequence[Prior]) -> None:
        super().__init__(Product([prior.space for prior in priors]))
        self.priors = nn.ModuleList(priors)
        self.reparametrised = all(prior.reparametrised for prior in priors)
        self.is_point = all(prior.is_point for prior in priors)
        self.is_partly_point = not self.is_point and any(prior.is_point or prior.is_partly_point for prior in priors)

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.cat([prior.draw(part, generator) for prior, part in self._parts(like)], -1)

    def log_prob(self, x: Tensor) -> Tensor:
        return sum(prior.log_prob(part).double() for prior, part in self._parts(x))

    def score(self, x: Tensor) -> Tensor:
        return torch.cat([prior.score(part) for prior, part in self._parts(x)], -1)

    @property
    def std(self) -> Tensor:
        return torch.cat([prior.std.expand(prior.space.dim) for prior in self.priors])

    def _parts(self, x: Tensor) -> Iterator[tuple[Prior, Tensor]]:
        return zip(self.priors, x.split([prior.space.dim for prior in self.priors], -1), strict=True)
