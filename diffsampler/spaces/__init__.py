"""Spaces: where states live, one file each. A process asks its space for kernels, a network for features."""

from diffsampler.spaces.base import Space
from diffsampler.spaces.circle import Circle
from diffsampler.spaces.euclidean import Euclidean, as_reals, as_space
from diffsampler.spaces.lattice import Lattice
from diffsampler.spaces.links import Links
from diffsampler.spaces.particles import Particles
from diffsampler.spaces.product import Product

__all__ = ["Circle", "Euclidean", "Lattice", "Links", "Particles", "Product", "Space", "as_reals", "as_space"]
