"""Models of data as targets, most of them conjugate: their evidence is known in closed form.

diffsampler fit --model.target=examples.models.EightSchools
python -m examples.benchmarks.calibration --target examples.models.BetaBinomial --seeds 0 1 2
"""

import math

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Binomial,
    Dirichlet,
    Gamma,
    HalfCauchy,
    InverseGamma,
    Multinomial,
    MultivariateNormal,
    Normal,
    Poisson,
    Wishart,
)

from diffsampler.models import ModelTarget, covariance, positive, real, simplex

Values = dict[str, Tensor]


SCHOOLS = {
    "y": [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0],
    "s": [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0],
}


def noncentred_log_likelihood(p: Values, data: Values) -> Tensor:
    """Of eight schools, with shape (B, 8), whose effects are in units of their spread."""
    return Normal(p["mu"][:, None] + p["tau"][:, None] * p["z"], data["s"]).log_prob(data["y"])


class EightSchools(ModelTarget):
    """Effects of coaching in eight schools (Rubin, 1981), by their spread about a mean, non-centred.

    Its log evidence, -31.311, is by quadrature over mu and tau, the posterior mean of tau 3.60.
    """

    def __init__(self) -> None:
        super().__init__(
            prior={"mu": Normal(0.0, 5.0), "tau": HalfCauchy(5.0), "z": Normal(torch.zeros(8), 1.0)},
            log_likelihood=noncentred_log_likelihood,
            data=SCHOOLS,
            dims={"z": ["school"]},
            coords={"school": list("ABCDEFGH")},
        )


class BetaBinomial(ModelTarget):
    """3 successes of 20, with a Beta(1/2, 2) prior: a probability whose prior has a pole at 0."""

    def __init__(self) -> None:
        super().__init__(
            prior={"p": Beta(0.5, 2.0)}, log_likelihood=lambda p, k: Binomial(20, p["p"]).log_prob(k), data=3.0
        )
        choose = math.lgamma(21) - math.lgamma(4) - math.lgamma(18)
        self.log_z = choose + _log_beta(3.5, 19.0) - _log_beta(0.5, 2.0)


class GammaPoisson(ModelTarget):
    """Five counts, with a Gamma(2, 1) prior of their rate."""

    def __init__(self) -> None:
        counts = [3.0, 0.0, 5.0, 2.0, 4.0]
        super().__init__(
            prior={"rate": Gamma(2.0, 1.0)},
            log_likelihood=lambda p, n: Poisson(p["rate"][:, None]).log_prob(n),
            data=counts,
        )
        total = sum(counts)
        self.log_z = math.lgamma(2 + total) - (2 + total) * math.log(6) - sum(math.lgamma(n + 1) for n in counts)


class DirichletMultinomial(ModelTarget):
    """Counts 9, 1 and 20 of three kinds, whose shares have a Dirichlet(1/2, 1, 2) prior."""

    def __init__(self) -> None:
        counts, alpha = torch.tensor([9.0, 1.0, 20.0]).double(), torch.tensor([0.5, 1.0, 2.0]).double()

        def log_joint(p: Values, n: Tensor) -> Tensor:
            return Dirichlet(alpha).log_prob(p["w"]) + Multinomial(30, p["w"]).log_prob(n)

        super().__init__(log_joint, {"w": simplex(3)}, counts)
        self.log_z = math.lgamma(31) - float(torch.lgamma(counts + 1).sum()) + _log_b(alpha + counts) - _log_b(alpha)


class NormalInverseWishart(ModelTarget):
    """Four points in the plane, with unknown mean and covariance: S^-1 ~ Wishart(5, 1), m ~ N(0, S / k), k = 0.5.

    The density of S is that of P = S^-1 times |S|^-(d + 1), the Jacobian of the inverse. The evidence is in
    Conjugate Bayesian analysis of the Gaussian distribution, Murphy, 2007, equation 266.
    """

    def __init__(self) -> None:
        x = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.1], [2.0, 1.0]]).double()
        n, k, nu = len(x), 0.5, 5.0

        def log_joint(p: Values, x: Tensor) -> Tensor:
            covariances, mean = p["S"], p["m"]
            precision = torch.linalg.inv(covariances)
            prior = Wishart(torch.tensor(nu), torch.eye(2)).log_prob(precision)
            prior = prior - 3 * torch.linalg.slogdet(covariances).logabsdet
            prior = prior + MultivariateNormal(torch.zeros(2), covariances / k).log_prob(mean)
            return prior + MultivariateNormal(mean[:, None], covariances[:, None]).log_prob(x).sum(-1)

        super().__init__(log_joint, {"S": covariance(2), "m": real(2)}, x)
        mean = x.mean(0)
        scatter = (x - mean).T @ (x - mean) + k * n / (k + n) * torch.outer(mean, mean)
        after = float(torch.linalg.slogdet(torch.eye(2).double() + scatter).logabsdet)
        self.log_z = _log_gamma2((nu + n) / 2) - _log_gamma2(nu / 2) - 0.5 * (nu + n) * after
        self.log_z += math.log(k / (k + n)) - n * math.log(math.pi)


class LinearRegression(ModelTarget):
    """Thirty points on a line with noise of unknown variance v: v ~ InverseGamma(3, 2), coefficients ~ N(0, v)."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        x = torch.linspace(-1, 1, 30, dtype=torch.float64)
        noise = torch.randn(30, generator=generator, dtype=torch.float64)
        design, y = torch.stack([torch.ones_like(x), x], -1), 0.5 + 1.5 * x + 0.7 * noise
        shape, rate = 3.0, 2.0

        def log_joint(p: Values, data: Values) -> Tensor:
            scale = p["v"].sqrt()[:, None]
            prior = InverseGamma(shape, rate).log_prob(p["v"]) + Normal(0.0, scale).log_prob(p["beta"]).sum(-1)
            return prior + Normal(p["beta"] @ data["design"].T, scale).log_prob(data["y"]).sum(-1)

        super().__init__(log_joint, {"beta": real(2), "v": positive()}, {"design": design, "y": y})
        precision = torch.eye(2).double() + design.T @ design
        mean = torch.linalg.solve(precision, design.T @ y)
        rest = float(y @ y - mean @ precision @ mean) / 2
        self.log_z = (
            shape * math.log(rate)
            - (shape + 15) * math.log(rate + rest)
            + math.lgamma(shape + 15)
            - math.lgamma(shape)
            - 15 * math.log(2 * math.pi)
            - 0.5 * float(torch.linalg.slogdet(precision).logabsdet)
        )


CONJUGATE = [BetaBinomial, GammaPoisson, DirichletMultinomial, NormalInverseWishart, LinearRegression]


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_b(alpha: Tensor) -> float:
    return float(torch.lgamma(alpha).sum() - torch.lgamma(alpha.sum()))


def _log_gamma2(a: float) -> float:
    """Of two dimensions: https://en.wikipedia.org/wiki/Multivariate_gamma_function."""
    return 0.5 * math.log(math.pi) + math.lgamma(a) + math.lgamma(a - 0.5)
