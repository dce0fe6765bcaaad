"""The law of z that proposals are images of: Student's, or normal but for one coordinate that goes far."""

import math

import torch
from torch import Tensor

from diffsampler.spaces.kernels import HALF_LOG_TWO_PI, noise_like, uniform_like

FAR_SHARE, FAR_SCALE, FAR_DEGREES = 0.15, 2.0, 3.0
SMALLEST_EXPONENT = -700.0  # below it there are only slow, denormal numbers


def log_law(z: Tensor, degrees: Tensor) -> Tensor:
    """The log-density, with shape (...), of z with shape (..., D), for degrees that broadcast to (...).

    A sixth of the draws is normal but for one coordinate, any, that goes far: along each of them importance weights
    show what lies beyond the points that a proposal was fitted to.
    """
    squares = z.square()
    near, far, _ = _log_laws(squares, squares.sum(-1), degrees)
    return torch.logaddexp(near, far)


def log_law_and_score(z: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and its gradient, with shape (..., D)."""
    squares = z.square()
    radius = squares.sum(-1)
    near, far, axis = _log_laws(squares, radius, degrees)
    far_share = (far - near).sigmoid().unsqueeze(-1)
    growth = FAR_DEGREES * FAR_SCALE**2 + squares
    near_rate = ((degrees + z.shape[-1]) / (degrees + radius)).unsqueeze(-1)
    far_rate = 1 - axis * (1 - (FAR_DEGREES + 1) / growth)
    return torch.logaddexp(near, far), -z * torch.lerp(near_rate, far_rate, far_share)


def draw(like: Tensor, degrees: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws, with the shape (n, D) of `like`, for degrees with shape (n)."""
    far = uniform_like(like[:, 0], generator) < FAR_SHARE
    axis = torch.randint(like.shape[1], far.shape, generator=generator, device=like.device)
    precisions = (_gamma(0.5 * shape, generator) for shape in (degrees, torch.full_like(degrees, FAR_DEGREES)))
    return noise_like(like, generator) * _scales(far, axis, *precisions, like.shape[1])


def turn(z: Tensor, angle: Tensor, degrees: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A move of z that leaves the law unchanged: a rotation by `angle`, with shape (n), towards an independent draw.

    Student's law is normal given a factor on its precision: that is drawn first, then z moves as in pCN.

    References:
        MCMC methods for functions, Cotter, Roberts, Stuart & White, 2013: the preconditioned Crank-Nicolson move.
    """
    dim, squares = z.shape[1], z.square()
    radius = squares.sum(-1)
    near, far, chance = _log_laws(squares, radius, degrees)
    goes_far = uniform_like(near, generator) < (far - near).sigmoid()
    axis = torch.multinomial(chance, 1, generator=generator).squeeze(-1)
    along = z.gather(1, axis.unsqueeze(-1)).squeeze(-1) / FAR_SCALE
    near_shape, far_shape = 0.5 * (degrees + dim), torch.full_like(along, 0.5 * (FAR_DEGREES + 1))
    near_precision = _gamma(near_shape, generator) * 2 * near_shape / (degrees + radius)
    far_precision = _gamma(far_shape, generator) * 2 * far_shape / (FAR_DEGREES + along.square())
    noise = noise_like(z, generator) * _scales(goes_far, axis, near_precision, far_precision, dim)
    return angle.cos().unsqueeze(-1) * z + angle.sin().unsqueeze(-1) * noise


def log_student(squares: Tensor, degrees: Tensor, dim: int) -> Tensor:
    """Of z with |z|^2 = squares, of unit covariance factor."""
    constant = torch.lgamma(0.5 * (degrees + dim)) - torch.lgamma(0.5 * degrees)
    return constant - 0.5 * dim * (degrees * math.pi).log() - 0.5 * (degrees + dim) * torch.log1p(squares / degrees)


def _log_laws(squares: Tensor, radius: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log of share and density of the near law and of the far one, both (...), and the chance of each axis, (..., D).

    Of the far one: a normal density of all coordinates, times what Student's has over it along an axis,
    exp(z_i^2 / 2) (1 + z_i^2 / (a s^2))^(-(a + 1) / 2), summed over axes.
    """
    dim = squares.shape[-1]
    near = math.log(1 - FAR_SHARE) + log_student(radius, degrees, dim)
    largest = squares.amax(-1, keepdim=True)
    over = (0.5 * (squares - largest)).clamp(min=SMALLEST_EXPONENT).exp()
    over = over * (1 + squares / (FAR_DEGREES * FAR_SCALE**2)) ** (-0.5 * (FAR_DEGREES + 1))
    total = over.sum(-1, keepdim=True)
    a = FAR_DEGREES
    constant = math.lgamma(0.5 * (a + 1)) - math.lgamma(0.5 * a) - 0.5 * math.log(a * math.pi) - math.log(FAR_SCALE)
    constant += math.log(FAR_SHARE / dim) - (dim - 1) * HALF_LOG_TWO_PI
    far = constant + 0.5 * (largest.squeeze(-1) - radius) + total.squeeze(-1).log()
    return near, far, over / total


def _scales(far: Tensor, axis: Tensor, near_precision: Tensor, far_precision: Tensor, dim: int) -> Tensor:
    """Standard deviations of z, with shape (n, D), given its law and the factors on its precision."""
    wide = torch.nn.functional.one_hot(axis, dim).bool()
    stretched = torch.where(wide, (FAR_SCALE / far_precision.sqrt()).unsqueeze(-1), 1.0)
    return torch.where(far.unsqueeze(-1), stretched, near_precision.rsqrt().unsqueeze(-1))


def _gamma(shape: Tensor, generator: torch.Generator | None) -> Tensor:
    """Gamma draws of mean 1, with the shape of `shape`."""
    return torch._standard_gamma(shape, generator=generator) / shape
