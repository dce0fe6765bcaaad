"""What tempered SMC starts from where a target declares its space: all directions, angles or sites alike."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import singledispatch

import torch
from torch import Tensor

from diffsampler.spaces import Circle, Lattice, Particles, Product, Space
from diffsampler.spaces.kernels import HALF_LOG_TWO_PI, noise_like, uniform_like


class Start(ABC):
    """A normalised density, in float64.

    Attributes:
        centre: a point of its support, with shape (D).
    """

    centre: Tensor

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, with shape (n, D)."""

    @abstractmethod
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density, with shape (n), and its gradient, for x with shape (n, D)."""

    @abstractmethod
    def walk(self, x: Tensor, angle: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A move that leaves the density unchanged: by `angle`, with shape (n), a right angle being a fresh draw."""

    @abstractmethod
    def units(self, x: Tensor, weight: Tensor | None = None) -> Tensor | None:
        """The units of moves among weighted points, with shape (n, D): a matrix (D, D), a number (), or None for 1."""

    @abstractmethod
    def fitted_to(self, x: Tensor, widening: float) -> "Start":
        """One of the same kind, `widening` times as wide as points x, with shape (n, D), are spread."""


class StationaryGaussian(Start):
    """N(loc, C) whose mean and covariance have the symmetry of a space.

    Arguments:
        space: R^D, or particles, or reals on a lattice.
        loc: with shape (D).
        root: the symmetric square root of C, with shape (D, D), or one number, with shape ().
    """

    def __init__(self, space: Space, loc: Tensor, root: Tensor) -> None:
        self.space, self.loc, self.root = space, loc, root
        if root.ndim:
            self._inverse = torch.linalg.inv(root)
            self._log_det = torch.linalg.slogdet(root).logabsdet
        else:
            self._inverse, self._log_det = 1 / root, len(loc) * root.log()
        # Not the mean: there particles coincide, where energies have poles.
        self.centre = self.sample(1, torch.Generator(loc.device).manual_seed(0))[0]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.loc + _times(noise_like(self.loc.expand(n, -1), generator), self.root)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        noise = _times(x - self.loc, self._inverse)
        log_prob = -0.5 * noise.square().sum(-1) - self._log_det - x.shape[-1] * HALF_LOG_TWO_PI
        return log_prob, -_times(noise, self._inverse)

    def walk(self, x: Tensor, angle: Tensor, generator: torch.Generator | None = None) -> Tensor:
        turned = _times(noise_like(x, generator), self.root)
        return self.loc + angle.cos().unsqueeze(-1) * (x - self.loc) + angle.sin().unsqueeze(-1) * turned

    def units(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return moments_on(self.space, x, weight)[1]

    def fitted_to(self, x: Tensor, widening: float) -> "StationaryGaussian":
        loc, root = moments_on(self.space, x)
        return StationaryGaussian(self.space, loc, widening * root)


class UniformAngles(Start):
    """The uniform density on D angles.

    Arguments:
        dim: D.
        device: of draws.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.centre = torch.zeros(dim, dtype=torch.float64, device=device)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return (2 * uniform_like(self.centre.expand(n, -1), generator) - 1) * math.pi

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_full((len(x),), -x.shape[-1] * math.log(2 * math.pi)), torch.zeros_like(x)

    def walk(self, x: Tensor, angle: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x + 2 * angle.unsqueeze(-1) * (2 * uniform_like(x, generator) - 1)

    def units(self, x: Tensor, weight: Tensor | None = None) -> None:
        return None

    def fitted_to(self, x: Tensor, widening: float) -> "UniformAngles":
        return self


class ProductStart(Start):
    """Independent starts of consecutive coordinates.

    Arguments:
        space: a product, whose parts' sizes count.
        parts: one for each of them.
    """

    def __init__(self, space: Product, parts: list[Start]) -> None:
        self.sizes, self.parts = [part.dim for part in space.spaces], parts
        self.space, self.centre = space, torch.cat([part.centre for part in parts])

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat([part.sample(n, generator) for part in self.parts], -1)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = [part.log_prob_and_score(of_part) for part, of_part in self._each(x)]
        return sum(log_prob for log_prob, _ in found), torch.cat([score for _, score in found], -1)

    def walk(self, x: Tensor, angle: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat([part.walk(of_part, angle, generator) for part, of_part in self._each(x)], -1)

    def units(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return moments_on(self.space, x, weight)[1]

    def fitted_to(self, x: Tensor, widening: float) -> "ProductStart":
        return ProductStart(self.space, [part.fitted_to(of_part, widening) for part, of_part in self._each(x)])

    def _each(self, x: Tensor) -> Iterator[tuple[Start, Tensor]]:
        return zip(self.parts, x.split(self.sizes, -1), strict=True)


@singledispatch
def moments_on(space: Space, x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and symmetric root of the covariance of points x, with shape (n, D), that have the symmetry of a space.

    The root is a matrix (D, D), or one number, with shape ().
    """
    mean = _mean(x, weight)
    return mean, _root(_covariance(x - mean, weight))


@moments_on.register
def _(space: Circle, x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(x[0]), torch.ones_like(x[0, 0])


@moments_on.register
def _(space: Product, x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    parts = x.split([part.dim for part in space.spaces], -1)
    means, roots = zip(
        *(moments_on(part, of, weight) for part, of in zip(space.spaces, parts, strict=True)), strict=True
    )
    return torch.cat(means), torch.block_diag(
        *(as_matrix(root, len(mean)) for mean, root in zip(means, roots, strict=True))
    )


@moments_on.register
def _(space: Particles, x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    # Isotropic even where the density is not: a start that all orientations have in common.
    return torch.zeros_like(x[0]), _mean(x.square().mean(-1), weight).sqrt()


@moments_on.register
def _(space: Lattice, x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    fields, num_axes = space.fields(x), len(space.shape)
    axes = tuple(range(-num_axes, 0))
    mean = _mean(fields.mean(axes), weight)[(...,) + (None,) * num_axes].expand(fields.shape[1:])
    modes = torch.fft.fftn(fields - mean, dim=axes).flatten(2)
    if weight is not None:
        modes = modes * (weight / weight.sum() * len(x)).sqrt()[:, None, None]
    # Of each wave vector, a Hermitian matrix between the fields of a site; that of -k is the conjugate.
    spectrum = torch.einsum("nak,nbk->kab", modes, modes.conj()) / (len(x) * modes.shape[-1])
    values, vectors = torch.linalg.eigh(spectrum)
    floor = 1e-12 * values.amax()
    roots = (vectors * values.clamp(min=floor).sqrt().unsqueeze(-2)) @ vectors.mH
    kernel = torch.fft.ifftn(roots.movedim(0, -1).unflatten(-1, space.shape), dim=axes).real
    sites = torch.cartesian_prod(*(torch.arange(size) for size in space.shape)).view(-1, num_axes).to(x.device)
    apart = (sites[:, None] - sites[None]) % torch.tensor(space.shape, device=x.device)
    root = kernel[(..., *apart.unbind(-1))].transpose(1, 2).flatten(0, 1).flatten(-2)
    return mean.flatten(), root


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    return values.mean(0) if weight is None else torch.tensordot(weight / weight.sum(), values, 1)


def _covariance(residual: Tensor, weight: Tensor | None) -> Tensor:
    share = torch.full_like(residual[:, 0], 1 / len(residual)) if weight is None else weight / weight.sum()
    covariance = residual.T @ (residual * share.unsqueeze(-1))
    if 1 / share.square().sum() < 2 * residual.shape[-1]:  # too few to tell directions apart
        covariance = 0.5 * (covariance + torch.diag(covariance.diagonal()))
    return covariance


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=1e-12 * values[-1]).sqrt()) @ vectors.T


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    return x @ matrix if matrix.ndim else x * matrix


def as_matrix(root: Tensor, dim: int) -> Tensor:
    """A root of a covariance with shape (D, D), where it is one already or a number."""
    return root if root.ndim else root * torch.eye(dim, dtype=root.dtype, device=root.device)


def widest(space: Space, scale: float, device: torch.device | str = "cpu") -> Start:
    """The start of which nothing is known but a scale."""
    if space.is_periodic:
        return UniformAngles(space.dim, device)
    if isinstance(space, Product):
        return ProductStart(space, [widest(part, scale, device) for part in space.spaces])
    loc = torch.zeros(space.dim, dtype=torch.float64, device=device)
    return StationaryGaussian(space, loc, torch.full_like(loc[0], scale))
