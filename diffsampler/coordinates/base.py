"""What coordinates are: the only thing that knows both z, where the sampler walks, and x, where the target lives."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffsampler.errors import InputError
from diffsampler.spaces import Euclidean, Space
from diffsampler.support import Support, score_through
from diffsampler.target import Target, space_of


class Coordinates(nn.Module, ABC):
    """A smooth map from z to x, one to one.

    Arguments:
        dim: the dimension d of z.
        target_dim: the dimension D of x, by default the same.

    Attributes:
        num_target_evaluations: what finding the coordinates cost.
        precise: whether the target is evaluated in float64 whatever the sampler's dtype: far from the origin, or with
            scales that differ much, float32 cannot tell the points apart.
        onto: from coordinates that go anywhere to x, where a support is declared and these know of it.
    """

    precise: bool = False
    onto: Support | None = None
    num_target_evaluations: int = 0

    def __init__(self, dim: int, target_dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.target_dim = dim if target_dim is None else target_dim

    @property
    def space(self) -> Space:
        """Where z lives, by default R^d."""
        return Euclidean(self.dim)

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dz|, with shapes (*, D) and (*), for z with shape (*, d)."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """z, with shape (*, d), for x with shape (*, D)."""

    def log_volume(self, z: Tensor) -> Tensor:
        """log |det dx/dz|, with shape (*)."""
        return self(z)[1]

    def move_to(self, target: Target) -> None:
        """Take in what another target of the same space declares, in place of the one that these were made of."""

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        """The gradient in z, with shape (*, d), of a density of which `score` is the gradient in x, (*, D).

        That of log |det dx/dz| is part of it. By autograd, unless a subclass has a closed form.
        """
        return score_through(self, z, score)


class DoubleCoordinates(Coordinates):
    """Coordinates whose tensors stay float64: they follow the sampler to its device, not to its dtype."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DoubleCoordinates":
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            if buffer.is_floating_point():
                self._buffers[name] = buffer.double()
        return self


def check_space(coordinates: Coordinates, target: Target) -> None:
    """Raise InputError if a target declares a space of which its coordinates know nothing."""
    space, name = space_of(target), type(coordinates).__name__
    if space.angles.any() and not torch.equal(coordinates.space.angles, space.angles):
        raise InputError(
            f"{type(target).__name__} lives on {space!r}, whose angles {name} would change: leave coordinates out."
        )
    if space.dim < target.dim and coordinates.dim > space.dim:
        raise InputError(
            f"{type(target).__name__} lives on {space!r}, of {space.dim} dimensions, but {name} walk in "
            f"{coordinates.dim}: take MeanFreeCoordinates, or leave coordinates out."
        )


def check_coordinates(coordinates: Coordinates) -> None:
    """Raise InputError unless `inverse` undoes `forward`, and log |det dx/dz| is that of autograd, at a few points."""
    name = type(coordinates).__name__
    z = torch.linspace(-1.5, 1.5, 3 * coordinates.dim, dtype=torch.float64).view(3, -1).roll(1, 0)
    with torch.inference_mode(False), torch.enable_grad():
        x, log_det = coordinates(z)
        if x.shape != (3, coordinates.target_dim) or log_det.shape != (3,):
            raise InputError(
                f"{name}.forward must return x and log_det with shapes (*, {coordinates.target_dim}) and (*), for z of "
                f"shape (*, {coordinates.dim}), got {tuple(x.shape)} and {tuple(log_det.shape)} for {tuple(z.shape)}."
            )
        jacobian = [torch.autograd.functional.jacobian(lambda one: coordinates(one[None])[0][0], one) for one in z]
    stretched = torch.stack([0.5 * torch.linalg.slogdet(j.T @ j).logabsdet for j in jacobian])
    if not torch.allclose(stretched, log_det.double(), rtol=1e-3, atol=1e-3):
        raise InputError(
            f"{name}.forward must return log |det dx/dz|, {stretched[0]:.4g} at z = {z[0].tolist()} by autograd, got "
            f"{float(log_det[0]):.4g}."
        )
    again = coordinates.inverse(x.detach())
    if again.shape != z.shape or not torch.allclose(again.double(), z, rtol=1e-3, atol=1e-3):
        raise InputError(f"{name}.inverse must undo forward, but it does not at z = {z[0].tolist()}.")
