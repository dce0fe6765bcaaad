"""Small densities on spaces of their own, whose log Z is exact."""

import math

import torch
from torch import Tensor

from diffsampler import FunctionTarget
from diffsampler.spaces import Euclidean, Lattice

LOG_TWO_PI = math.log(2 * math.pi)


def pair_distances(x: Tensor, num_particles: int) -> Tensor:
    """Of all pairs, with shape (*, P), for x with shape (*, n d)."""
    at = x.unflatten(-1, (num_particles, -1))
    first, second = torch.triu_indices(num_particles, num_particles, 1)
    return (at[..., first, :] - at[..., second, :]).norm(dim=-1)


def centred(x: Tensor, num_particles: int) -> Tensor:
    """Particles around their mean, with shape (*, n, d)."""
    at = x.unflatten(-1, (num_particles, -1))
    return at - at.mean(-2, keepdim=True)


def springs(n: int = 3, d: int = 2, scale: float = 1.0, **declared: object) -> FunctionTarget:
    """-1/2 sum_{i<j} |x_i - x_j|^2 / scale^2 = -n/2 |x - mean|^2 / scale^2, of identical particles if not declared."""

    def log_prob(x: Tensor) -> Tensor:
        return -0.5 * n * (centred(x, n) / scale).square().sum((-1, -2))

    log_z = 0.5 * (n - 1) * d * (LOG_TWO_PI - math.log(n) + 2 * math.log(scale))
    return FunctionTarget(log_prob, n * d, log_z=log_z, **(declared or {"mean_free": n}))


def log_i0(kappa: float) -> float:
    """The log of the integral of exp(kappa cos a) over a turn."""
    return LOG_TWO_PI + math.log(float(torch.special.i0(torch.tensor(kappa, dtype=torch.float64))))


def two_angles(**more: object) -> FunctionTarget:
    """Two angles with one mode, without a symmetry, whose log Z is by the trapezoidal rule: exact to rounding."""

    def log_prob(x: Tensor) -> Tensor:
        a, b = x[..., 0], x[..., 1]
        return 1.5 * (a - 1).cos() + (2 * b + 0.5).sin() + 0.8 * (a - 2 * b).cos() + 0.7 * b.cos()

    turn = torch.arange(64, dtype=torch.float64) * (2 * math.pi / 64)
    log_z = float(log_prob(torch.cartesian_prod(turn, turn)).logsumexp(0)) + 2 * math.log(2 * math.pi / 64)
    return FunctionTarget(log_prob, 2, log_z=log_z, periodic=True, **more)


def angles_beside_a_real(scale: float = 1.0, **more: object) -> FunctionTarget:
    """Two angles, and between them a real of this scale whose mean follows the first."""

    def log_prob(x: Tensor) -> Tensor:
        a, real, b = x.unbind(-1)
        return 2 * (a - 1).cos() + b.cos() - 0.5 * ((real / scale - 1 - a.sin()) / 0.5) ** 2

    log_z = log_i0(2.0) + log_i0(1.0) + 0.5 * LOG_TWO_PI + math.log(0.5 * scale)
    return FunctionTarget(log_prob, 3, log_z=log_z, periodic=[0, 2], **more)


def two_fields(shape: tuple[int, ...] = (3, 2)) -> FunctionTarget:
    """Two coupled normal fields around 2 on a periodic lattice: log Z is that of a Gaussian."""
    space = Lattice(shape, Euclidean(2))
    mass = torch.tensor([[1.5, 0.4], [0.4, 1.0]], dtype=torch.float64)
    axes = range(-len(shape), 0)

    def log_prob(x: Tensor) -> Tensor:
        fields = space.fields(x) - 2.0
        there = fields.movedim(-len(shape) - 1, -1)
        on_site = (there @ mass.to(x) * there).flatten(-len(shape) - 1).sum(-1)
        slopes = sum((fields - fields.roll(1, axis)).square().flatten(-len(shape) - 1).sum(-1) for axis in axes)
        return -0.5 * (on_site + slopes)

    at = torch.zeros(space.dim, dtype=torch.float64)
    precision = -torch.autograd.functional.hessian(log_prob, at)
    log_z = 0.5 * (space.dim * LOG_TWO_PI - float(torch.linalg.slogdet(precision).logabsdet))
    return FunctionTarget(log_prob, space.dim, log_z=log_z, space=space)
