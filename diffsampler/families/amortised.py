"""Posteriors of one model, for all data."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from diffsampler.families.simulated import Simulated
from diffsampler.families.unknowns import asked_in_rows

ROUNDING = 1e-5  # relative


class Amortised(Simulated):
    """prior(x) L(data | x), with data for a context: log Z is the evidence of each data set.

    As `Simulated`, nothing is searched, and training begins with maximum likelihood on simulations; the likelihood then
    sharpens it, and makes weights and evidence exact.

    Arguments:
        prior, simulate, dims, coords: as in `Simulated`.
        log_likelihood: log L, with all its constants, for B parameters, as `simulate` gets them, and as many data with
            shape (B, C): with shape (B), or terms of it with shape (B, N).
    """

    differentiable = True
    has_density = True

    def __init__(
        self,
        prior: Distribution | Mapping[str, Distribution],
        simulate: Callable[[Any], Tensor],
        log_likelihood: Callable[[Any, Tensor], Tensor],
        *,
        dims: Mapping[str, list[str]] | None = None,
        coords: Mapping[str, list[Any]] | None = None,
    ) -> None:
        super().__init__(prior, simulate, dims=dims, coords=coords)
        self.log_likelihood = log_likelihood

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        # States hold data in units of their spread, in float32: counts are no whole numbers then.
        near = self.is_whole & ((context - context.round()).abs() < ROUNDING * context.abs().clamp(min=1.0))
        data = torch.where(near, context.round(), context)
        return self.unknowns.log_prob(x) + asked_in_rows(self.log_likelihood, self.unknowns, x, data)
