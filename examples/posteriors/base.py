"""Models for comparisons: posteriors that samplers of the prior's unit cube can walk too."""

import torch
from scipy.special import gammaincinv
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, Gamma, InverseGamma

from diffsampler.models import ModelTarget

Values = dict[str, Tensor]


class CubedModel(ModelTarget):
    """A posterior that nested samplers can take too: as prior quantiles and a likelihood.

    Independent priors need no more than `ModelTarget` does; others say what `from_cube` does.
    """

    def from_cube(self, u: Tensor) -> Values:
        """Values whose prior quantiles these are, with shapes (B, *shape), for u in (0, 1) with shape (B, D)."""
        return {name: quantile(prior, u[:, self.columns[name]]) for name, prior in self.prior.items()}

    def log_likelihood_of(self, values: Values) -> Tensor:
        """With shape (B)."""
        terms = self._asked(self.log_likelihood, values)
        return terms if terms.ndim < 2 else terms.flatten(1).sum(-1)

    def identified(self, values: Values) -> Values:
        """The same with labels that mean something, whose moments can be compared."""
        return values


def quantile(prior: Distribution, u: Tensor) -> Tensor:
    """Values of a prior, with shape (B, *shape), for u in (0, 1) with shape (B, D); for three that torch has not."""
    if isinstance(prior, Dirichlet):
        return _dirichlet(prior, u)
    u = u.reshape(-1, *prior.batch_shape)
    if isinstance(prior, Gamma):
        return torch.from_numpy(gammaincinv(prior.concentration.numpy(), u.numpy())) / prior.rate
    if isinstance(prior, InverseGamma):
        return 1 / quantile(prior.base_dist, 1 - u)
    return prior.icdf(u)


def _dirichlet(prior: Dirichlet, u: Tensor) -> Tensor:
    """Uniform on the simplex only: sticks are broken off by Beta(1, K - k), whose quantiles are powers."""
    if not (prior.concentration == 1).all():
        raise NotImplementedError("quantiles of a Dirichlet are written for ones alone")
    exponents = torch.arange(u.shape[-1], 0, -1, dtype=u.dtype)
    kept = (1 - u) ** (1 / exponents)
    left = torch.cat([torch.ones_like(u[:, :1]), kept.cumprod(-1)], -1)
    return torch.cat([left[:, :-1] * (1 - kept), left[:, -1:]], -1)
