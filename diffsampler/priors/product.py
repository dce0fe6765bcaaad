"""Independent priors side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffsampler.priors.base import Prior
from diffsampler.spaces import Product

__all__ = ["ProductPrior"]


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

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        return torch.cat([prior.sample(n, generator, dtype, device) for prior in self.priors], -1)

    def log_prob(self, x: Tensor) -> Tensor:
        return sum(prior.log_prob(part).double() for prior, part in zip(self.priors, self._parts(x), strict=True))

    def score(self, x: Tensor) -> Tensor:
        parts = zip(self.priors, self._parts(x), strict=True)
        return torch.cat([prior.score(part) for prior, part in parts], -1)

    @property
    def std(self) -> Tensor:
        return torch.cat([prior.std.expand(prior.space.dim) for prior in self.priors])

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split([prior.space.dim for prior in self.priors], -1)
