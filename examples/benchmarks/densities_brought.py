"""Eight densities that users brought and that once went wrong; exact log Z, in closed form or by quadrature."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler import FunctionTarget, Target
from examples.benchmarks.densities import LogProb, normal

__all__ = ["BROUGHT", "hierarchy", "within"]

LOG_2_PI = math.log(2 * math.pi)


def within(x: Tensor, low: float, high: float, log_prob: Tensor) -> Tensor:
    """Cut to a box."""
    return torch.where(((x >= low) & (x <= high)).all(-1), log_prob, -math.inf)


def mode_in_a_corner() -> Target:
    """A box; 90 % of the mass in a mode whose centre is a corner of it."""

    def log_prob(x: Tensor) -> Tensor:
        broad = math.log(0.1) + normal(x, 0.5, 0.1).sum(-1)
        return within(x, 0, 1, torch.logaddexp(broad, math.log(0.9 * 2**5) + normal(x, 1.0, 0.03).sum(-1)))

    return FunctionTarget(log_prob, 5, 0.0)


def modes_on_edges() -> Target:
    """A square; one mode inside, half of one at an edge, a quarter of one in a corner."""
    means = torch.tensor([[0.4, 0.6], [1.0, 0.3], [0.0, 1.0]], dtype=torch.float64)
    stds, weights = (0.05, 0.03, 0.02), (0.6, 0.25 * 2, 0.15 * 4)

    def log_prob(x: Tensor) -> Tensor:
        modes = zip(means.to(x), stds, weights, strict=True)
        parts = [math.log(weight) + normal(x, mean, std).sum(-1) for mean, std, weight in modes]
        return within(x, 0, 1, torch.stack(parts).logsumexp(0))

    return FunctionTarget(log_prob, 2, 0.0)


def eggbox() -> Target:
    """The nested samplers' classic (Feroz et al. 2009): 18 peaks of height e^243, many cut by the edge."""
    # 25 squares alike, in each of which midpoints converge as for a periodic function.
    line = ((torch.arange(1000, dtype=torch.float64) + 0.5) * math.pi / 1000).cos()
    log_z = float(((2 + line.unsqueeze(-1) * line) ** 5).flatten().logsumexp(0)) + 2 * math.log(10 * math.pi / 1000)

    def log_prob(x: Tensor) -> Tensor:
        return within(x, 0, 10 * math.pi, (2 + (x[..., 0] / 2).cos() * (x[..., 1] / 2).cos()) ** 5)

    return FunctionTarget(log_prob, 2, log_z)


def hybrid_rosenbrock(depth: int) -> Target:
    """Two branches (Pagani, Wiegand & Nadarajah 2022): thin, bent, long: x0 ~ N(1, 10), then x0^2, x0^4, ..."""

    def log_prob(x: Tensor) -> Tensor:
        total = -((x[..., 0] - 1) ** 2) / 20
        for first in (1, 1 + depth):
            before = x[..., 0]
            for i in range(first, first + depth):
                total = total - 5 * (x[..., i] - before**2) ** 2
                before = x[..., i]
        return total

    return FunctionTarget(log_prob, 1 + 2 * depth, 0.5 * (math.log(20 * math.pi) + 2 * depth * math.log(math.pi / 5)))


def hierarchy(effects: Tensor, errors: Tensor, std: float, log_prior: LogProb) -> Target:
    """effect ~ N(theta, error), theta ~ N(mu, tau), mu ~ N(0, std), centred: of (mu, log tau, theta).

    `log_prior` is that of log tau. Its log Z by quadrature along log tau; the rest is Gaussian.
    """
    log_tau = torch.linspace(-16, 12, 28_001, dtype=torch.float64)
    y, variance = effects.unsqueeze(-1), errors.unsqueeze(-1) ** 2 + (2 * log_tau).exp()
    shared = 1 + std**2 * (1 / variance).sum(0)
    square = (y**2 / variance).sum(0) - std**2 * (y / variance).sum(0) ** 2 / shared
    evidence = -0.5 * (len(y) * LOG_2_PI + variance.log().sum(0) + shared.log() + square)
    log_z = float((evidence + log_prior(log_tau)).logsumexp(0) + (log_tau[1] - log_tau[0]).log())

    def log_prob(x: Tensor) -> Tensor:
        mu, log_tau, theta = x[..., 0], x[..., 1:2], x[..., 2:]
        groups = -0.5 * ((theta - x[..., :1]) / log_tau.exp()) ** 2 - log_tau - 0.5 * LOG_2_PI
        data = -0.5 * ((effects.to(x) - theta) / errors.to(x)) ** 2 - errors.to(x).log() - 0.5 * LOG_2_PI
        return normal(mu, std=std) + log_prior(log_tau.squeeze(-1)) + groups.sum(-1) + data.sum(-1)

    return FunctionTarget(log_prob, 2 + len(effects), log_z)


def eight_schools() -> Target:
    """Rubin 1981, with mu ~ N(0, 5) and tau ~ HalfCauchy(5)."""
    effects = torch.tensor([28, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
    errors = torch.tensor([15, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)

    def log_prior(log_tau: Tensor) -> Tensor:
        return math.log(2 / (math.pi * 5)) - torch.log1p((2 * log_tau).exp() / 25) + log_tau

    return hierarchy(effects, errors, 5.0, log_prior)


def badly_scaled_regression() -> Target:
    """60 000 data, 24 coefficients in units from 1e-3 to 1e5, two columns nearly alike: a Gaussian posterior."""
    generator = torch.Generator().manual_seed(3)
    scales = torch.logspace(-3, 5, 24, dtype=torch.float64)
    design = torch.randn(60_000, 24, generator=generator, dtype=torch.float64)
    design[:, 1] = design[:, 0] + 0.05 * design[:, 1]
    truth = torch.randn(24, generator=generator, dtype=torch.float64)
    y = design @ truth + torch.randn(60_000, generator=generator, dtype=torch.float64)
    gram, moment = design.T @ design, design.T @ y
    precision = gram + torch.eye(24, dtype=torch.float64) / 100  # prior N(0, 10^2) on coefficients of unit columns
    constant = float(-30_000 * LOG_2_PI - 0.5 * y @ y - 12 * LOG_2_PI - 24 * math.log(10))
    explained = 0.5 * moment @ torch.linalg.solve(precision, moment)
    log_z = constant + float(explained - 0.5 * torch.logdet(precision) - scales.log().sum()) + 12 * LOG_2_PI

    def log_prob(x: Tensor) -> Tensor:
        b = x * scales.to(x)
        return constant - 0.5 * ((b @ gram.to(x)) * b).sum(-1) + b @ moment.to(x) - 0.005 * b.square().sum(-1)

    return FunctionTarget(log_prob, 24, log_z)


def large_constant() -> Target:
    """An additive constant of 1e8, beside which float32 cannot hold the rest."""
    log_z = 1e8 + math.log(2 * math.pi * 0.25)
    return FunctionTarget(lambda x: -0.5 * (x - 0.3).square().sum(-1) / 0.25 + 1e8, 2, log_z)


BROUGHT: dict[str, Callable[[], Target]] = {
    "mode in a corner, 5-d": mode_in_a_corner,
    "modes on edges, 2-d": modes_on_edges,
    "eggbox, 2-d": eggbox,
    "hybrid Rosenbrock, 5-d": lambda: hybrid_rosenbrock(2),
    "hybrid Rosenbrock, 7-d": lambda: hybrid_rosenbrock(3),
    "eight schools, 10-d": eight_schools,
    "badly scaled regression, 24-d": badly_scaled_regression,
    "constant of 1e8, 2-d": large_constant,
}
