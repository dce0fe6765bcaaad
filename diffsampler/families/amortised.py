"""Posteriors of one model, for all data."""

from collections.abc import Callable

from torch import Tensor
from torch.distributions import Distribution

from diffsampler.families.simulated import Simulated


class Amortised(Simulated):
    """prior(x) L(data | x), with data for a context: log Z is the evidence of each data set.

    As `Simulated`, nothing is searched, and training begins with maximum likelihood on simulations; the likelihood then
    sharpens it, and makes weights and evidence exact.

    Arguments:
        prior, simulate: as in `Simulated`.
        log_likelihood: log L, with shape (*), for parameters with shape (*, D) and data with shape (*, C), with all its
            constants.
    """

    differentiable = True
    has_density = True

    def __init__(
        self,
        prior: Distribution,
        simulate: Callable[[Tensor], Tensor],
        log_likelihood: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__(prior, simulate)
        self.log_likelihood = log_likelihood

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        return self.prior.log_prob(x) + self.log_likelihood(x, context)
