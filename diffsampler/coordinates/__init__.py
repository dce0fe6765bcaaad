"""Where the sampler walks (z), and where the target lives (x)."""

from diffsampler.coordinates.affine import AffineCoordinates, LaplaceCoordinates, ScaledCoordinates
from diffsampler.coordinates.base import Coordinates, DensityInCoordinates, check_coordinates
from diffsampler.coordinates.found import FoundCoordinates
from diffsampler.coordinates.on_space import SpaceCoordinates
from diffsampler.coordinates.searched import SearchedCoordinates
from diffsampler.coordinates.supported import SupportCoordinates

__all__ = [
    "AffineCoordinates",
    "Coordinates",
    "DensityInCoordinates",
    "FoundCoordinates",
    "LaplaceCoordinates",
    "ScaledCoordinates",
    "SearchedCoordinates",
    "SpaceCoordinates",
    "SupportCoordinates",
    "check_coordinates",
]
