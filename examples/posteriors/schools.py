"""Eight schools, in both forms.

Estimation in parallel randomized experiments, Rubin, 1981; Bayesian Data Analysis, Gelman et al., section 5.5.
"""

import torch
from torch import Tensor
from torch.distributions import HalfCauchy, Normal

from diffsampler.models import positive, real
from examples.models import SCHOOLS, noncentred_log_likelihood
from examples.posteriors.base import CubedModel, Values

LOG_Z = -31.3113  # of both, by quadrature over mu and tau


class SchoolsNoncentred(CubedModel):
    """Effects in units of their spread."""

    def __init__(self) -> None:
        super().__init__(
            prior={"mu": Normal(0.0, 5.0), "tau": HalfCauchy(5.0), "z": Normal(torch.zeros(8), 1.0)},
            log_likelihood=noncentred_log_likelihood,
            data=SCHOOLS,
            log_z=LOG_Z,
        )


class SchoolsCentred(CubedModel):
    """Effects themselves: a funnel, as nobody should write it and many do."""

    def __init__(self) -> None:
        def log_joint(p: Values, data: Values) -> Tensor:
            prior = Normal(0.0, 5.0).log_prob(p["mu"]) + HalfCauchy(5.0).log_prob(p["tau"])
            effects = Normal(p["mu"][:, None], p["tau"][:, None]).log_prob(p["theta"]).sum(-1)
            return prior + effects + log_likelihood(p, data).sum(-1)

        def log_likelihood(p: Values, data: Values) -> Tensor:
            return Normal(p["theta"], data["s"]).log_prob(data["y"])

        super().__init__(
            log_joint,
            {"mu": real(), "tau": positive(), "theta": real(8)},
            SCHOOLS,
            log_likelihood=log_likelihood,
            log_z=LOG_Z,
        )

    def from_cube(self, u: Tensor) -> Values:
        mu, tau = 5 * torch.special.ndtri(u[:, 0]), HalfCauchy(5.0).icdf(u[:, 1])
        return {"mu": mu, "tau": tau, "theta": mu[:, None] + tau[:, None] * torch.special.ndtri(u[:, 2:])}
