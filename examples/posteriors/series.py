"""Models of time series and of a curve: GARCH(1, 1), a Gaussian process, Lotka-Volterra."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Gamma, HalfNormal, LogNormal, MultivariateNormal, Normal, Uniform
from torch.distributions.constraints import positive

from examples.posteriors.base import CubedModel, Values


class Garch(CubedModel):
    """GARCH(1, 1) on 200 simulated returns, in the form of posteriordb's `garch11`.

    Generalized autoregressive conditional heteroskedasticity, Bollerslev, 1986. beta1 = share (1 - alpha1), so that a
    uniform share makes beta1 uniform below 1 - alpha1; flat priors are replaced by proper ones, for an evidence.
    """

    first_scale = 0.5

    def __init__(self) -> None:
        def log_likelihood(p: Values, y: Tensor) -> Tensor:
            variance = variances(p["mu"], p["alpha0"], p["alpha1"], p["share"] * (1 - p["alpha1"]), y)
            return Normal(p["mu"][:, None], variance.sqrt()).log_prob(y)

        super().__init__(
            prior={
                "mu": Normal(0.0, 10.0),
                "alpha0": HalfNormal(5.0),
                "alpha1": Uniform(0.0, 1.0),
                "share": Uniform(0.0, 1.0),
            },
            log_likelihood=log_likelihood,
            data=simulated_returns(200, mu=5.0, alpha0=1.5, alpha1=0.35, beta1=0.4),
            log_z=-445.767,  # by quadrature
        )


def variances(mu: Tensor, alpha0: Tensor, alpha1: Tensor, beta1: Tensor, y: Tensor) -> Tensor:
    """Of each return, given those before it, with shape (B, N), for parameters with shape (B)."""
    found = [torch.full_like(mu, Garch.first_scale**2)]
    shocks = alpha0[:, None] + alpha1[:, None] * (y - mu[:, None]).square()
    for shock in shocks.T[:-1]:
        found.append(shock + beta1 * found[-1])
    return torch.stack(found, -1)


def simulated_returns(n: int, mu: float, alpha0: float, alpha1: float, beta1: float) -> Tensor:
    """With shape (n), always the same."""
    noise = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    found, variance = [], Garch.first_scale**2
    for one in noise:
        found.append(mu + variance**0.5 * one)
        variance = alpha0 + alpha1 * (found[-1] - mu) ** 2 + beta1 * variance
    return torch.tensor(found, dtype=torch.float64)


class GaussianProcess(CubedModel):
    """Three hyperparameters of a Gaussian process at eleven simulated points: `gp_regr` of posteriordb.

    Its priors and the truth its data were simulated from: length 5.5, amplitude 3, noise 2.
    """

    def __init__(self) -> None:
        def covariance(length: Tensor, amplitude: Tensor, noise: Tensor, x: Tensor) -> Tensor:
            squared = (x[:, None] - x).square() / (2 * length[:, None, None] ** 2)
            smooth = amplitude[:, None, None] ** 2 * (-squared).exp()
            return smooth + noise[:, None, None] ** 2 * torch.eye(len(x), dtype=x.dtype)

        def log_likelihood(p: Values, data: Values) -> Tensor:
            found = covariance(p["length"], p["amplitude"], p["noise"], data["x"])
            return MultivariateNormal(torch.zeros_like(data["y"]), found).log_prob(data["y"])

        x = torch.linspace(-10, 10, 11, dtype=torch.float64)
        white = torch.randn(11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        truth = covariance(*torch.tensor([5.5, 3.0, 2.0], dtype=torch.float64)[:, None], x)[0]
        super().__init__(
            prior={"length": Gamma(25.0, 4.0), "amplitude": HalfNormal(2.0), "noise": HalfNormal(1.0)},
            log_likelihood=log_likelihood,
            data={"x": x, "y": torch.linalg.cholesky(truth) @ white},
            log_z=-30.9087,  # by quadrature
        )


class LotkaVolterra(CubedModel):
    """Hares and lynxes, whose pelts the Hudson's Bay Company counted from 1900 to 1920: 8-d.

    Predator-prey population dynamics: the Lotka-Volterra model in Stan, Carpenter, 2018; `hudson_lynx_hare` of
    posteriordb. Logarithms of the populations are integrated by four steps a year of Runge and Kutta's fourth order,
    whatever the parameters, so that the density is smooth.
    """

    hares = [30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1, 40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6]
    hares += [14.6, 16.2, 24.7]
    lynxes = [4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4, 8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7]
    lynxes += [10.1, 8.6]
    step_size = 0.25  # years
    largest = 12.0  # of a logarithm: hares beyond 100 million are as many as these

    def __init__(self) -> None:
        def log_likelihood(p: Values, data: Values) -> Tensor:
            path = populations(p["rates"], p["losses"], p["start"], data["year"])  # (N, B, 2)
            return LogNormal(path.movedim(0, 1), p["sigma"][:, None]).log_prob(data["pelts"])

        super().__init__(
            prior={
                "rates": PositiveNormal(torch.ones(2), 0.5),
                "losses": PositiveNormal(0.05 * torch.ones(2), 0.05),
                "start": LogNormal(torch.full((2,), 10.0).log(), 1.0),
                "sigma": LogNormal(-torch.ones(2), 1.0),
            },
            log_likelihood=log_likelihood,
            data={"year": torch.arange(21.0), "pelts": torch.tensor([self.hares, self.lynxes]).T},
        )


def populations(rates: Tensor, losses: Tensor, start: Tensor, year: Tensor) -> Tensor:
    """Logarithms of hares and lynxes, with shape (N, B, 2), for rates, losses and starts with shape (B, 2)."""
    from torchdiffeq import odeint

    sign = torch.tensor([1.0, -1.0], dtype=rates.dtype)
    growth, loss = sign * rates, -sign * losses

    def change(_: Tensor, logs: Tensor) -> Tensor:
        return growth + loss * logs.flip(-1).clamp(max=LotkaVolterra.largest).exp()

    return odeint(change, start.log(), year, method="rk4", options={"step_size": LotkaVolterra.step_size})


class PositiveNormal(Distribution):
    """A normal density, cut off at 0."""

    support = positive
    arg_constraints: dict[str, object] = {}

    def __init__(self, loc: Tensor, scale: float) -> None:
        self.loc, self.scale = loc, torch.as_tensor(scale)
        super().__init__(loc.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return Normal(self.loc, self.scale).log_prob(value) - torch.special.log_ndtr(self.loc / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        below = torch.special.ndtr(-self.loc / self.scale)
        return self.loc + self.scale * torch.special.ndtri(below + (1 - below) * value)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        return self.icdf(torch.rand(*sample_shape, *self.batch_shape, dtype=self.loc.dtype))
