"""R^D."""

from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.spaces.base import Space
from diffsampler.spaces.kernels import GaussianKernel


class Euclidean(Space):
    """R^D, with normal noise."""

    is_euclidean = True

    def kernel(self, mean: Tensor, std: Tensor) -> GaussianKernel:
        return GaussianKernel(mean, std)

    def features(self, x: Tensor) -> Tensor:
        return x

    def features_of_each(self, x: Tensor, scale: Tensor) -> Tensor:
        return (x / scale.to(x.dtype)).unsqueeze(-1)


def as_space(space: Space | int) -> Space:
    """A space; a number stands for R^D of that dimension."""
    if isinstance(space, Space):
        return space
    if isinstance(space, bool) or not isinstance(space, int):
        raise InputError(f"space must be a Space, or the dimension of R^D as a whole number, got {space!r}.")
    return Euclidean(space)


def as_reals(name: str, space: Space | int) -> Space:
    """The space of a part by this name, whose formulas hold on R^D only; InputError if it is another."""
    space = as_space(space)
    if not space.is_euclidean:
        raise InputError(
            f"{name} is for states in R^D, but these live on {space!r}: take Torus for angles, ProductProcess for "
            "angles and reals."
        )
    return space
