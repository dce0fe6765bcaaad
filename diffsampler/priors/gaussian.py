"""A Gaussian."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffsampler.errors import InputError
from diffsampler.priors.base import Prior
from diffsampler.renamed import knows_old_names
from diffsampler.spaces import Space
from diffsampler.spaces.kernels import GaussianKernel
from diffsampler.spaces.scales import to_scales


class GaussianPrior(Prior):
    """N(loc, diag(scale^2)).

    Arguments:
        space: R^D, or D.
        loc: the mean of every coordinate.
        scale: the standard deviation, one for all coordinates or one each; positive.
        learnable: whether training moves both, each coordinate by itself.
    """

    reparametrised = True

    @knows_old_names
    def __init__(
        self, space: Space | int, loc: float = 0.0, scale: float | Sequence[float] = 1.0, learnable: bool = True
    ) -> None:
        super().__init__(space)
        if not math.isfinite(loc):
            raise InputError(f"loc must be a finite number, got {loc!r}.")
        self.register_buffer("scale", to_scales("scale", scale, self.space.dim), persistent=False)
        # In units of the scale at the start: an optimiser's step then means the same for every scale.
        for name, value in (("loc", float(loc)), ("log_factor", 0.0)):
            values = torch.full((self.space.dim,), value)
            if learnable:
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values, persistent=False)

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return GaussianKernel(self.loc.to(like.dtype).expand_as(like), self._scale_now()).rsample(generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return GaussianKernel(self.loc.to(x.dtype), self._scale_now()).log_prob(x)

    def score(self, x: Tensor) -> Tensor:
        return (self.loc.to(x.dtype) - x) / self._scale_now().square().to(x.dtype)

    @property
    def std(self) -> Tensor:
        return self.scale

    def _scale_now(self) -> Tensor:
        return self.scale * self.log_factor.double().exp()
