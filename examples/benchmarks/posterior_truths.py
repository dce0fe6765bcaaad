"""Evidence by quadrature, where few numbers remain once the others are integrated in closed form.

    python -m examples.benchmarks.posterior_truths

These are the `log_z` of the models in examples/posteriors; the trapezoidal rule is exact to far more digits than shown.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import HalfCauchy

from examples.posteriors import Garch, GaussianProcess, Interaction, SchoolsNoncentred, VaryingIntercept

CHUNK = 20_000


def trapezoid(log_f: Callable[[Tensor], Tensor], low: list[float], high: list[float], num: int) -> float:
    """The log of an integral over a box, by so many points along each side, for a function that ends within it."""
    axes = [torch.linspace(a, b, num, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    x = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    log_volume = sum(math.log((b - a) / (num - 1)) for a, b in zip(low, high, strict=True))
    return float(torch.cat([log_f(part) for part in x.split(CHUNK)]).logsumexp(0)) + log_volume


def gaussian_evidence(design: Tensor, widths: Tensor, noise: Tensor, y: Tensor) -> Tensor:
    """log N(y; 0, noise^2 + design diag(widths^2) design^T), with shape (B), for widths (B, K) and noise (B) or (B, N).

    By the matrix determinant lemma and Woodbury's identity.
    """
    noise = noise.reshape(len(widths), -1).expand(-1, len(y))
    scaled = design * widths[:, None] / noise[..., None]
    inner = torch.eye(design.shape[-1]).double() + scaled.mT @ scaled
    factor = torch.linalg.cholesky(inner)
    white = y / noise
    along = torch.linalg.solve_triangular(factor, (scaled.mT @ white[..., None]), upper=False)[..., 0]
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 2 * noise.log().sum(-1)
    return -0.5 * (white.square().sum(-1) - along.square().sum(-1) + log_det + len(y) * math.log(2 * math.pi))


def schools() -> float:
    """Of both forms: over log tau, as mu and the effects are Gaussian given it."""
    data = SchoolsNoncentred().observed_data
    design = torch.cat([torch.ones(8, 1).double(), torch.eye(8).double()], -1)

    def log_f(x: Tensor) -> Tensor:
        tau = x[:, 0].exp()
        widths = torch.cat([torch.full_like(x, 5.0), tau[:, None].expand(-1, 8)], -1)
        noise = data["s"].expand(len(x), -1)
        return gaussian_evidence(design, widths, noise, data["y"]) + HalfCauchy(5.0).log_prob(tau) + x[:, 0]

    return trapezoid(log_f, [-35.0], [25.0], 4001)


def interaction() -> float:
    """Over log sigma."""
    data = Interaction().observed_data

    def log_f(x: Tensor) -> Tensor:
        sigma = x[:, 0].exp()
        found = gaussian_evidence(data["design"], torch.full((len(x), 4), 5.0).double(), sigma, data["y"])
        return found + HalfCauchy(2.5).log_prob(sigma) + x[:, 0]

    return trapezoid(log_f, [-1.5], [1.5], 401)


def varying_intercept() -> float:
    """Over log tau and log sigma."""
    data = VaryingIntercept().observed_data
    design = torch.cat([torch.ones(len(data["y"]), 1).double(), data["mass"][:, None], data["member"]], -1)
    num_groups = data["member"].shape[-1]

    def log_f(x: Tensor) -> Tensor:
        tau, sigma = x.exp().unbind(-1)
        widths = torch.cat([torch.full((len(x), 2), 10.0).double(), tau[:, None].expand(-1, num_groups)], -1)
        found = torch.cat(
            [
                gaussian_evidence(design, *each, data["y"])
                for each in zip(widths.split(500), sigma.split(500), strict=True)
            ]
        )
        return found + HalfCauchy(1.0).log_prob(torch.stack([tau, sigma])).sum(0) + x.sum(-1)

    return trapezoid(log_f, [-30.0, -0.7], [12.0, 0.7], 201)


def gaussian_process() -> float:
    """Over all three hyperparameters, as free numbers."""
    return trapezoid(GaussianProcess().log_prob, [0.0, -9.0, -9.0], [3.5, 3.5, 2.5], 101)


def garch() -> float:
    """Over all four parameters, as free numbers."""
    return trapezoid(Garch().log_prob, [4.0, -7.0, -9.0, -12.0], [6.0, 3.0, 6.0, 9.0], 49)


TRUTHS = {each.__name__: each for each in (schools, interaction, varying_intercept, gaussian_process, garch)}


def main() -> None:
    for name, truth in TRUTHS.items():
        print(f"{name}: {truth():.4f}")


if __name__ == "__main__":
    main()
