"""Particles whose energy does not know where their centre is."""

import torch
from torch import Tensor

from diffsampler.errors import check_count, check_flag
from diffsampler.spaces.base import Symmetry
from diffsampler.spaces.euclidean import Euclidean
from diffsampler.spaces.kernels import noise_like, uniform_like


class Particles(Euclidean):
    """n particles in R^d with their mean at 0, as z in R^((n - 1) d).

    A density that does not change when all particles move alike has no integral over R^(n d); over {x: sum_i x_i = 0},
    with the volume of R^((n - 1) d) there, it may have one, which log Z is then about. x = H^T z with orthonormal rows
    h_k = (1, ..., 1, -k, 0, ..., 0) / (k (k + 1))^(1/2) (Helmert): isotropic noise stays isotropic, and rotations and
    permutations of particles are orthogonal maps of z.

    With another convention log Z is another one by a constant: with coordinates relative to one particle by
    (d / 2) log n more; with a trap exp(-|x_i|^2 / 2) on every particle over all of R^(n d) by (d / 2) log(2 pi) more.

    Arguments:
        num_particles: n, at least 2.
        dimension: d, in which they move.
        identical: whether the density stays the same when particles are exchanged.
        isotropic: whether it stays the same when all are rotated or reflected.
    """

    def __init__(self, num_particles: int, dimension: int = 3, identical: bool = True, isotropic: bool = True) -> None:
        self.num_particles = check_count("num_particles", num_particles, minimum=2)
        self.dimension = check_count("dimension", dimension)
        super().__init__((num_particles - 1) * dimension)
        self.identical = check_flag("identical", identical)
        self.isotropic = check_flag("isotropic", isotropic)
        k = torch.arange(1, num_particles, dtype=torch.float64)
        rows = torch.ones(num_particles - 1, num_particles, dtype=torch.float64).tril()
        rows[:, 1:] -= torch.diag(k)
        rows /= (k * (k + 1)).sqrt().unsqueeze(-1)
        self._basis = rows
        self._moved: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @property
    def target_dim(self) -> int:
        return self.num_particles * self.dimension

    def positions(self, z: Tensor) -> Tensor:
        """The particles x = H^T z, with shape (*, n, d), for z with shape (*, (n - 1) d)."""
        return self._basis_like(z).T @ z.unflatten(-1, (-1, self.dimension))

    def flattened(self, vectors: Tensor) -> Tensor:
        """H v, with shape (*, (n - 1) d), for one vector a particle, with shape (*, n, d): their mean is lost."""
        return (self._basis_like(vectors) @ vectors).flatten(-2)

    def to_target(self, z: Tensor) -> Tensor:
        return self.positions(z).flatten(-2)

    def from_target(self, x: Tensor) -> Tensor:
        return self.flattened(x.unflatten(-1, (-1, self.dimension)))

    @property
    def symmetries(self) -> dict[str, Symmetry]:
        declared = {"all particles move alike": self._translated}
        if self.identical:
            declared["particles are exchanged"] = self._exchanged
        if self.isotropic:
            declared["all particles are rotated or reflected"] = self._rotated
        return declared

    def _translated(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        # By about as much as they are apart: by much more, float32 would no longer know how far that is.
        size = x.abs().amax(-1, keepdim=True)
        return x + (size * noise_like(x[..., : self.dimension], generator)).repeat(1, self.num_particles)

    def _exchanged(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        particles = x.unflatten(-1, (-1, self.dimension))
        order = uniform_like(particles[..., 0], generator).argsort(-1).unsqueeze(-1)
        return particles.gather(-2, order.expand_as(particles)).flatten(-2)

    def _rotated(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = noise_like(x.new_empty(*x.shape[:-1], self.dimension, self.dimension), generator)
        rotation, triangle = torch.linalg.qr(noise)
        # Haar, once the signs are fixed: Mezzadri, 2007, arXiv:math-ph/0609050.
        rotation = rotation * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
        return (x.unflatten(-1, (-1, self.dimension)) @ rotation).flatten(-2)

    def _basis_like(self, z: Tensor) -> Tensor:
        """Copied there once, which a CUDA graph needs."""
        key = z.device, z.dtype
        if key not in self._moved:
            with torch.inference_mode(False):  # gradients pass here, wherever the first call comes from
                self._moved[key] = self._basis.to(z).clone()
        return self._moved[key]

    def __repr__(self) -> str:
        return f"Particles({self.num_particles}, {self.dimension})"
