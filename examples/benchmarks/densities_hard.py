"""Twelve more with exact log Z: edges, many unequal modes, curves, hierarchies, heavy tails; and a few to spare."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler import FunctionTarget, Target
from examples.benchmarks.densities import directions, funnel, gaussian, mixture, normal, rotated
from examples.benchmarks.densities_brought import hierarchy, within

__all__ = ["HARD", "SPARE"]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ordered() -> Target:
    """Three unlike Gaussians where x1 < x2 < x3; the probability of that by quadrature along x2."""
    means, stds = (4.0, 3.0, 5.0), (2.0, 0.5, 3.0)
    middle = torch.linspace(means[1] - 6, means[1] + 6, 24_001, dtype=torch.float64)
    below = torch.special.log_ndtr((middle - means[0]) / stds[0])
    above = torch.special.log_ndtr((means[2] - middle) / stds[2])
    log_z = float((normal(middle, means[1], stds[1]) + below + above).logsumexp(0)) + math.log(12 / 24_000)

    def log_prob(x: Tensor) -> Tensor:
        parts = [normal(x[..., i], means[i], stds[i]) for i in range(3)]
        return torch.where((x.diff(dim=-1) > 0).all(-1), sum(parts), -math.inf)

    return FunctionTarget(log_prob, 3, log_z)


def dirichlet() -> Target:
    """Three of four shares that sum to 1; without end at one face, highest near another."""
    shapes = double(0.8, 1.0, 3.0, 8.0)

    def log_prob(x: Tensor) -> Tensor:
        shares = torch.cat([x, 1 - x.sum(-1, keepdim=True)], -1)
        return torch.where((shares > 0).all(-1), ((shapes.to(x) - 1) * shares.log()).sum(-1), -math.inf)

    return FunctionTarget(log_prob, 3, float(torch.lgamma(shapes).sum() - torch.lgamma(shapes.sum())))


def half_a_gaussian_with_a_hole() -> Target:
    """Correlated, without its core and without the half beyond a plane through its mean."""
    whiten = directions(6, 7) / torch.logspace(-1, 1, 6, dtype=torch.float64)
    normal_vector = double(1.0, -1.0, 0.5, 2.0, 0.0, -0.3)
    outside = 5 * math.exp(-2)  # the probability that a chi-square of six degrees exceeds 4
    offset = float(torch.linalg.slogdet(whiten)[1]) - 3 * math.log(2 * math.pi)

    def log_prob(x: Tensor) -> Tensor:
        z = (x - 2) @ whiten.to(x)
        square = z.square().sum(-1)
        return torch.where((square > 4) & (z @ normal_vector.to(x) > 0), offset - 0.5 * square, -math.inf)

    return FunctionTarget(log_prob, 6, math.log(outside / 2))


def twelve_modes() -> Target:
    """Scattered over the plane, of widths 0.03 to 0.4 and of weights 1 to 12."""
    generator = torch.Generator().manual_seed(11)
    means = 20 * torch.rand(12, 2, generator=generator, dtype=torch.float64) - 10
    stds = torch.logspace(math.log10(0.03), math.log10(0.4), 12, dtype=torch.float64)
    weights = (1 + torch.randperm(12, generator=generator).double()) / 78
    return mixture(means.tolist(), stds.tolist(), weights.tolist())


def five_far_modes() -> Target:
    """In four dimensions, 25 to 70 apart."""
    means = [[0, 0, 0, 0], [30, -10, 5, 0], [-20, 0, 40, 5], [5, 25, -15, -35], [-30, -20, 0, 10]]
    return mixture(means, [1.0, 0.5, 2.0, 0.4, 1.5], [0.1, 0.25, 0.3, 0.15, 0.2])


def label_switching() -> Target:
    """The means of three components of unequal weights: six unequal modes; log Z by all 3^8 allocations of the data."""
    data = double(-4.1, -3.2, -3.7, -2.8, 0.9, 1.6, 4.4, 5.3)
    log_weights = double(0.5, 0.3, 0.2).log()
    of = torch.cartesian_prod(*[torch.arange(3)] * len(data))
    log_z = log_weights[of].sum(-1)
    for component in range(3):
        mine = of == component
        num, total, square = mine.sum(-1), (mine * data).sum(-1), (mine * data**2).sum(-1)
        precision = 1 / 25 + num
        log_z += -0.5 * (num * math.log(2 * math.pi) + (25 * precision).log() + square - total**2 / precision)

    def log_prob(x: Tensor) -> Tensor:
        likelihood = (log_weights.to(x) + normal(data.to(x).unsqueeze(-1), x.unsqueeze(-2))).logsumexp(-1)
        return normal(x, std=5.0).sum(-1) + likelihood.sum(-1)

    return FunctionTarget(log_prob, 3, float(log_z.logsumexp(0)))


def twisted() -> Target:
    """Four coordinates bend four others in four ways, four are plain with scales of 0.1 to 20; all rotated."""
    rotation, stds = directions(12, 8), double(0.1, 1.0, 5.0, 20.0)
    offset = -float(stds.log().sum())

    def log_prob(x: Tensor) -> Tensor:
        y = (x - 3) @ rotation.to(x)
        free, bent, plain = y[..., :4], y[..., 4:8], y[..., 8:] / stds.to(x)
        a, b, c, d = free.unbind(-1)
        bend = torch.stack([0.4 * a**2, (2 * b).sin(), c * d / 2, 0.1 * d**3], -1)
        return offset + (normal(free, std=1.5) + normal(bent, bend, 0.4) + normal(plain)).sum(-1)

    return FunctionTarget(log_prob, 12, 0.0)


def ring() -> Target:
    """Tilted, thin, denser on one side."""
    rotation, radius = directions(3, 9), 5.0

    def log_prob(x: Tensor) -> Tensor:
        u, v, height = ((x - 1) @ rotation.to(x)).unbind(-1)
        distance = torch.hypot(u, v)
        return normal(distance, radius, 0.2) + normal(height, std=0.3) + (0.6 * u + 0.8 * v) / distance

    # The mean distance, 25 standard deviations from 0, times the integral of exp(cos) over the angle.
    return FunctionTarget(log_prob, 3, math.log(radius * 2 * math.pi) + float(torch.i0(double(1.0)).log()))


def ten_groups() -> Target:
    """Ten groups measured with errors of 0.5 to 4; tau ~ HalfNormal(3)."""
    effects = double(2.1, 9.3, 5.5, -1.0, 12.8, 6.4, 3.7, 8.9, 0.6, 5.0)
    errors = double(1.0, 2.0, 0.5, 1.5, 3.0, 1.0, 2.0, 0.7, 1.0, 4.0)
    return hierarchy(effects, errors, 10.0, lambda log_tau: math.log(2) + normal(log_tau.exp(), std=3.0) + log_tau)


def student(x: Tensor, degrees: float, mean: Tensor | float = 0.0, std: Tensor | float = 1.0) -> Tensor:
    """The log-density of each coordinate, of Student's t."""
    std = torch.as_tensor(std).to(x)
    offset = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    return offset - (degrees + 1) / 2 * torch.log1p(((x - mean) / std) ** 2 / degrees) - std.log()


def heavy_tailed_modes() -> Target:
    """Three products of Student t of three degrees, in the plane."""
    means, stds = [[0.0, 0.0], [15.0, -8.0], [-6.0, 20.0]], double(1.0, 0.3, 2.0)
    means, log_weights = double(*means[0], *means[1], *means[2]).view(3, 2), double(0.5, 0.2, 0.3).log()

    def log_prob(x: Tensor) -> Tensor:
        modes = student(x.unsqueeze(-2), 3.0, means.to(x), stds.to(x).unsqueeze(-1)).sum(-1)
        return (log_weights.to(x) + modes).logsumexp(-1)

    return FunctionTarget(log_prob, 2, 0.0)


def gamma_poisson() -> Target:
    """The logarithm of a rate with a Gamma(2, 0.5) prior, after five counts."""
    counts = double(31.0, 27.0, 44.0, 35.0, 29.0)
    shape, rate = 2 + float(counts.sum()), 0.5 + len(counts)
    offset = 2 * math.log(0.5) - math.lgamma(2.0) - float(torch.lgamma(counts + 1).sum())
    log_z = offset + math.lgamma(shape) - shape * math.log(rate)
    return FunctionTarget(lambda x: offset + (shape * x - rate * x.exp()).sum(-1), 1, log_z)


def beta_bernoulli() -> Target:
    """The logit of a probability with a Beta(0.5, 2) prior, after no success in nine."""
    logsigmoid, offset = torch.nn.functional.logsigmoid, math.lgamma(2.5) - math.lgamma(0.5) - math.lgamma(2.0)
    log_z = offset + math.lgamma(0.5) + math.lgamma(11.0) - math.lgamma(11.5)
    return FunctionTarget(lambda x: offset + (0.5 * logsigmoid(x) + 11 * logsigmoid(-x)).sum(-1), 1, log_z)


def bent() -> Target:
    """A long bent ridge of two coordinates beside two plain ones, far from the origin."""
    far, stds = double(30.0, -50.0, 0.0, 7.0), double(3.0, 0.3, 0.5, 4.0)

    def log_prob(x: Tensor) -> Tensor:
        y = x - far.to(x)
        bend = torch.stack([0 * y[..., 0], 0.2 * y[..., 0] ** 2, 0 * y[..., 0], 0 * y[..., 0]], -1)
        return normal((y - bend) / stds.to(x)).sum(-1) - float(stds.log().sum())

    return FunctionTarget(log_prob, 4, 0.0)


def mode_on_a_face() -> Target:
    """Half a narrow Gaussian in a cube, its mean on a face, beside a broad one."""

    def log_prob(x: Tensor) -> Tensor:
        narrow = math.log(2 * 0.7) + normal(x[..., 0], 1.0, 0.02) + normal(x[..., 1:], 0.5, 0.05).sum(-1)
        return within(x, 0, 1, torch.logaddexp(narrow, math.log(0.3) + normal(x, 0.4, 0.06).sum(-1)))

    return FunctionTarget(log_prob, 5, 0.0)


def student_product() -> Target:
    """Five coordinates of three degrees, of unlike places and scales."""
    means, stds = double(0.0, 5.0, -20.0, 100.0, 1.0), double(1.0, 0.1, 3.0, 20.0, 0.5)
    return FunctionTarget(lambda x: student(x, 3.0, means.to(x), stds.to(x)).sum(-1), 5, 0.0)


HARD: dict[str, Callable[[], Target]] = {
    "ordered Gaussians, 3-d": ordered,
    "Dirichlet, 3-d": dirichlet,
    "half a Gaussian with a hole, 6-d": half_a_gaussian_with_a_hole,
    "twelve narrow modes, 2-d": twelve_modes,
    "five far modes, 4-d": five_far_modes,
    "label switching, 3-d": label_switching,
    "twisted and rotated, 12-d": twisted,
    "ring, 3-d": ring,
    "ten groups, 12-d": ten_groups,
    "heavy-tailed modes, 2-d": heavy_tailed_modes,
    "Gamma-Poisson, 1-d": gamma_poisson,
    "two near modes, 64-d": lambda: mixture([[0.0] * 64, [0.75] * 64], [1.0, 0.8], [0.7, 0.3]),
}

# Run where they are named only.
SPARE: dict[str, Callable[[], Target]] = {
    "Beta-Bernoulli, 1-d": beta_bernoulli,
    "bent, 4-d": bent,
    "mode on a face, 5-d": mode_on_a_face,
    "Student t product, 5-d": student_product,
    "funnel, 10-d": lambda: funnel(10, 1.5),
    "condition 1e6 about 200, 30-d": lambda: gaussian(200.0, rotated(torch.logspace(-3, 3, 30).double(), 4)),
}
