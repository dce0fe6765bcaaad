"""Twelve densities that have no integral, each to be refused, and thirteen odd ones that have one, not to be."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler import FunctionTarget, Target
from examples.benchmarks.densities import LogProb, directions, gaussian, normal
from examples.benchmarks.densities_brought import within
from examples.benchmarks.densities_hard import student

__all__ = ["IMPROPER", "ODD"]


def particles(num: int, dim: int) -> LogProb:
    """Pairs with two favourite distances; nothing holds the whole in its place."""
    i, j = torch.triu_indices(num, num, 1)

    def log_prob(x: Tensor) -> Tensor:
        places = x.unflatten(-1, (num, dim))
        distances = (places[..., i, :] - places[..., j, :]).square().sum(-1).add(1e-12).sqrt() - 4
        return (4 * distances**2 - 0.9 * distances**4).sum(-1)

    return log_prob


def two_angles(x: Tensor) -> Tensor:
    return 3 * torch.cos(x[..., 0] - 1) + 2 * torch.cos(x[..., 1] + 0.5) + torch.cos(x[..., 0] - x[..., 1])


def rotated_ridge() -> Target:
    """Four of five random directions are held."""
    held = directions(5, 5)[:, :4]
    return FunctionTarget(lambda x: -0.5 * (x @ held.to(x) - 1).square().sum(-1), 5)


def angle_in_degrees(x: Tensor) -> Tensor:
    """Beside two real coordinates that depend on it."""
    angle = x[..., 1] * math.pi / 180
    return 4 * torch.cos(angle - 0.5) + normal(x[..., 0], angle.sin(), 0.5) + normal(x[..., 2], 3 * angle.cos())


def softmax(x: Tensor) -> Tensor:
    """A logit for each of four classes, seen 7, 2, 11 and 5 times: one too many."""
    counts = torch.tensor([7.0, 2.0, 11.0, 5.0], dtype=torch.float64)
    return (counts.to(x) * x.log_softmax(-1)).sum(-1)


def improper(log_prob: LogProb, dim: int, differentiable: bool = True) -> Callable[[], Target]:
    return lambda: FunctionTarget(log_prob, dim, differentiable=differentiable)


# Each with the direction, the period or the growth that there is no integral for.
IMPROPER: dict[str, tuple[Callable[[], Target], str]] = {
    "flat ridge, 2-d": (improper(lambda x: -0.5 * (x[..., 0] + x[..., 1] - 1) ** 2, 2), "along (1, -1)"),
    "constant, 3-d": (improper(lambda x: 0.0 * x.sum(-1), 3), "every direction"),
    "tail of 1/x, 1-d": (improper(lambda x: -torch.log1p(x[..., 0].abs()), 1), "the tail"),
    "two angles, 2-d": (improper(two_angles, 2), "period 2 pi in both"),
    "particles in the plane, 8-d": (improper(particles(4, 2), 8), "translation of four particles"),
    "energy without its minus, 2-d": (improper(lambda x: 0.5 * x.square().sum(-1), 2), "grows for ever"),
    "rotated ridge, 5-d": (rotated_ridge, "one direction, along no axis"),
    "angle in degrees, 3-d": (improper(angle_in_degrees, 3), "period 360 in x[1]"),
    "particles in space, 12-d": (improper(particles(4, 3), 12), "translation of four particles"),
    "tail of 1/x^2, 2-d": (improper(lambda x: -torch.log1p(x.square().sum(-1)), 2), "the tail"),
    "softmax, 4-d": (improper(softmax, 4), "along (1, 1, 1, 1)"),
    "black box without its minus, 2-d": (
        improper(lambda x: 0.5 * (x.detach() - 1).square().sum(-1), 2, differentiable=False),
        "grows for ever",
    ),
}


def student_of_all(degrees: float) -> Target:
    """Five coordinates that are large together, about 3, of scale 2."""
    offset = math.lgamma((degrees + 5) / 2) - math.lgamma(degrees / 2) - 2.5 * math.log(4 * degrees * math.pi)

    def log_prob(x: Tensor) -> Tensor:
        return offset - (degrees + 5) / 2 * torch.log1p(((x - 3) / 2).square().sum(-1) / degrees)

    return FunctionTarget(log_prob, 5, 0.0)


def one_dimensional(log_prob: LogProb, log_z: float = 0.0) -> Callable[[], Target]:
    """Of a function of the coordinate."""
    return lambda: FunctionTarget(lambda x: log_prob(x[..., 0]), 1, log_z)


def stretched_exponential(x: Tensor) -> Tensor:
    return -x[..., 0].abs().sqrt() - (x[..., 1].abs() / 10).sqrt()


def log_normal(x: Tensor) -> Tensor:
    """The logarithms have standard deviations of 1 and 2."""
    inside = (x > 0).all(-1)
    y = torch.where(inside.unsqueeze(-1), x, 1.0).log()
    return torch.where(inside, normal(y[..., 0]) + normal(y[..., 1], 1.0, 2.0) - y.sum(-1), -math.inf)


def disc(x: Tensor) -> Tensor:
    """Not a number outside a disc of radius 2."""
    return (4 - (x - 1).square().sum(-1)).log()


ODD: dict[str, Callable[[], Target]] = {
    "Student t of 2 degrees, 1-d": one_dimensional(lambda x: student(x, 2.0, 10.0, 3.0)),
    "Student t of 3 degrees, 1-d": one_dimensional(lambda x: student(x, 3.0, -1.0, 0.2)),
    "Student t of 2 degrees, 5-d": lambda: student_of_all(2.0),
    "Student t of 3 degrees, 5-d": lambda: student_of_all(3.0),
    "Cauchy, 1-d": one_dimensional(lambda x: student(x, 1.0, 5.0, 2.0)),
    "half-Cauchy, 1-d": one_dimensional(lambda x: torch.where(x > 0, math.log(2) + student(x, 1.0), -math.inf)),
    "scale of 1e14, 2-d": lambda: gaussian(0.0, 1e28 * torch.eye(2, dtype=torch.float64)),
    "scale of 1e-10, 2-d": lambda: gaussian(0.0, 1e-20 * torch.eye(2, dtype=torch.float64)),
    "flat box, 2-d": lambda: FunctionTarget(lambda x: within(x, -1, 3, 0 * x.sum(-1)), 2, 2 * math.log(4)),
    "not a number outside a disc, 2-d": lambda: FunctionTarget(disc, 2, math.log(8 * math.pi)),
    "stretched exponential, 2-d": lambda: FunctionTarget(stretched_exponential, 2, math.log(4 * 40)),
    "log-normal, 2-d": lambda: FunctionTarget(log_normal, 2, 0.0),
    "Laplace, 3-d": lambda: FunctionTarget(
        lambda x: -(x[..., 0].abs() + (x[..., 1] - 4).abs() / 0.1 + x[..., 2].abs() / 30), 3, math.log(8 * 0.1 * 30)
    ),
}
