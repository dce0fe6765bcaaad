"""Spaces: where states live, one file each. A process asks its space for kernels, a network for features."""

from diffsampler.spaces.base import Space
from diffsampler.spaces.circle import Circle
from diffsampler.spaces.euclidean import Euclidean, as_space
from diffsampler.spaces.product import Product

__all__ = ["Circle", "Euclidean", "Product", "Space", "as_space"]
