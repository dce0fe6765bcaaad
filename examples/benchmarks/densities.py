"""Twenty densities with exact log Z, of all kinds that users bring; nothing in the library is tuned to them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler import FunctionTarget, Target

__all__ = ["DENSITIES"]

LogProb = Callable[[Tensor], Tensor]


def normal(x: Tensor, mean: Tensor | float = 0.0, std: float = 1.0) -> Tensor:
    """The log-density of each coordinate."""
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


def gaussian(mean: float, covariance: Tensor, log_z: float = 0.0, differentiable: bool = True) -> Target:
    """A Gaussian times exp(log_z)."""
    factor = torch.linalg.cholesky(covariance)
    offset = log_z - float(factor.diagonal().log().sum()) - 0.5 * len(factor) * math.log(2 * math.pi)

    def log_prob(x: Tensor) -> Tensor:
        x = x if differentiable else x.detach()
        z = torch.linalg.solve_triangular(factor.to(x), (x - mean).reshape(-1, len(factor)).T, upper=False)
        return (offset - 0.5 * z.square().sum(0)).view(x.shape[:-1])

    return FunctionTarget(log_prob, len(factor), log_z, differentiable=differentiable)


def directions(dim: int, seed: int) -> Tensor:
    """Random orthogonal directions, the columns of a matrix with shape (D, D)."""
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)).double())[0]


def rotated(variances: Tensor, seed: int) -> Tensor:
    """A covariance with these eigenvalues, in random directions."""
    rotation = directions(len(variances), seed)
    return rotation @ torch.diag(variances) @ rotation.T


def mixture(means: list[list[float]], stds: list[float], weights: list[float]) -> Target:
    """Isotropic Gaussians."""
    means, stds, weights = (torch.tensor(values, dtype=torch.float64) for values in (means, stds, weights))
    dim = means.shape[1]
    offset = weights.log() - dim * stds.log() - 0.5 * dim * math.log(2 * math.pi)

    def log_prob(x: Tensor) -> Tensor:
        z = (x.unsqueeze(-2) - means.to(x)) / stds.to(x).unsqueeze(-1)
        return (offset.to(x) - 0.5 * z.square().sum(-1)).logsumexp(-1)

    return FunctionTarget(log_prob, dim, log_z=0.0)


def banana() -> Target:
    """Three curved pairs, of volume that the bend preserves."""
    return FunctionTarget(
        lambda x: (normal(x[..., :3], std=1.5) + normal(x[..., 3:], x[..., :3].square() - 2.25, 0.5)).sum(-1), 6, 0.0
    )


def student(degrees: float = 5.0, dim: int = 8) -> Target:
    """Multivariate Student t."""
    offset = math.lgamma((degrees + dim) / 2) - math.lgamma(degrees / 2) - dim / 2 * math.log(degrees * math.pi)
    return FunctionTarget(lambda x: offset - (degrees + dim) / 2 * torch.log1p(x.square().sum(-1) / degrees), dim, 0.0)


def log_gamma() -> Target:
    """Logarithms of gamma variables of ten shapes."""
    shapes = torch.linspace(0.7, 4.0, 10, dtype=torch.float64)
    return FunctionTarget(lambda x: (shapes.to(x) * x - x.exp() - torch.lgamma(shapes).to(x)).sum(-1), len(shapes), 0.0)


def skew_normal() -> Target:
    """Five skewed coordinates."""
    return FunctionTarget(lambda x: (math.log(2) + normal(x) + torch.special.log_ndtr(6 * x)).sum(-1), 5, 0.0)


def funnel(dim: int = 6, std: float = 2.0) -> Target:
    """Neal's, with this standard deviation of the log-variance."""

    def log_prob(x: Tensor) -> Tensor:
        v = x[..., :1]
        rest = -0.5 * x[..., 1:].square() * (-v).exp() - 0.5 * v - 0.5 * math.log(2 * math.pi)
        return normal(x[..., 0], std=std) + rest.sum(-1)

    return FunctionTarget(log_prob, dim, 0.0)


def half_normal() -> Target:
    """Cut to positive coordinates."""
    return FunctionTarget(lambda x: torch.where((x > 0).all(-1), (math.log(2) + normal(x)).sum(-1), -math.inf), 6, 0.0)


def exponential_in_a_box() -> Target:
    """Falling, between 0 and 2."""
    log_z = 3 * math.log((1 - math.exp(-6)) / 3)
    return FunctionTarget(lambda x: torch.where(((x > 0) & (x < 2)).all(-1), (-3 * x).sum(-1), -math.inf), 3, log_z)


def logit_beta() -> Target:
    """Beta variables, brought from (0, 1) to the line."""
    a = torch.tensor([0.5, 1.0, 2.0, 5.0, 0.5, 3.0, 1.0, 2.0], dtype=torch.float64)
    b = torch.tensor([0.5, 3.0, 2.0, 1.0, 2.0, 3.0, 1.0, 0.7], dtype=torch.float64)
    offset = float((torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)).sum())
    sigmoid = torch.nn.functional.logsigmoid
    return FunctionTarget(lambda x: offset + (a.to(x) * sigmoid(x) + b.to(x) * sigmoid(-x)).sum(-1), 8, 0.0)


def gumbel() -> Target:
    """One skewed coordinate, off the origin."""
    return FunctionTarget(lambda x: (-(x - 3) / 0.2 - (-(x - 3) / 0.2).exp() - math.log(0.2)).sum(-1), 1, 0.0)


def linear_regression(num_points: int = 40, dim: int = 15) -> Target:
    """A conjugate posterior with two nearly collinear columns; its evidence in closed form."""
    generator = torch.Generator().manual_seed(3)
    design = torch.randn(num_points, dim, generator=generator).double()
    design[:, 1] = design[:, 0] + 0.1 * design[:, 1]
    truth, noise = torch.randn(dim, generator=generator).double(), torch.randn(num_points, generator=generator).double()
    y = design @ truth + 0.5 * noise
    covariance = 0.25 * torch.eye(num_points, dtype=torch.float64) + 4 * design @ design.T
    evidence = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y)

    def log_prob(x: Tensor) -> Tensor:
        return normal(y.to(x), x @ design.T.to(x), 0.5).sum(-1) + normal(x, std=2.0).sum(-1)

    return FunctionTarget(log_prob, dim, float(evidence))


def autoregression() -> Target:
    """64 coordinates, each correlated with its neighbours by 0.9."""
    index = torch.arange(64).double()
    return gaussian(0.0, 0.9 ** (index.unsqueeze(-1) - index).abs())


def wells() -> Target:
    """Four double wells: sixteen modes in eight dimensions; log Z by quadrature."""
    line = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    one = math.log(float(torch.trapezoid((-(line**4) + 6 * line**2 + 0.5 * line).exp(), line)))

    def log_prob(x: Tensor) -> Tensor:
        well = x[..., :4]
        return (-(well**4) + 6 * well**2 + 0.5 * well - 0.5 * x[..., 4:].square()).sum(-1)

    return FunctionTarget(log_prob, 8, 4 * one + 2 * math.log(2 * math.pi))


def stairs() -> Target:
    """Flat steps: a gradient of zero wherever there is one."""
    log_z = 3 * math.log(0.4 / (1 - math.exp(-0.2)))
    return FunctionTarget(lambda x: -0.2 * (x.abs() / 0.2).floor().sum(-1), 3, log_z, differentiable=False)


DENSITIES: dict[str, Callable[[], Target]] = {
    "shifted by 100, 4-d": lambda: gaussian(100.0, torch.eye(4, dtype=torch.float64)),
    "scales from 1e-3 to 1e3, 7-d": lambda: gaussian(0.0, torch.diag(torch.logspace(-6, 6, 7).double())),
    "condition 1e7 about 50, 20-d": lambda: gaussian(50.0, rotated(torch.logspace(-3.5, 3.5, 20).double(), 1)),
    "banana, 6-d": banana,
    "Student t, 8-d": student,
    "log-gamma, 10-d": log_gamma,
    "skew normal, 5-d": skew_normal,
    "two modes, 2-d": lambda: mixture([[-5.0, 0.0], [5.0, 2.0]], [1.0, 0.5], [0.8, 0.2]),
    "two far modes, 8-d": lambda: mixture([[-6.0] * 8, [4.0] * 8], [1.0, 0.6], [0.85, 0.15]),
    "three unequal modes, 4-d": lambda: mixture(
        [[0.0, 0.0, 0.0, 0.0], [8.0, 0.0, 3.0, 0.0], [-3.0, 9.0, 0.0, -5.0]], [2.0, 0.4, 1.0], [0.3, 0.3, 0.4]
    ),
    "funnel, 6-d": funnel,
    "half-normal, 6-d": half_normal,
    "exponential in a box, 3-d": exponential_in_a_box,
    "logit of beta, 8-d": logit_beta,
    "Gumbel, 1-d": gumbel,
    "linear regression, 15-d": linear_regression,
    "autoregression, 64-d": autoregression,
    "double wells, 8-d": wells,
    "stairs, 3-d": stairs,
    "black box, 5-d": lambda: gaussian(3.0, rotated(torch.logspace(-2, 2, 5).double(), 2), -7.0, differentiable=False),
}
