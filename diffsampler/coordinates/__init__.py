"""Where the sampler walks (z), and where the target lives (x)."""

from diffsampler.coordinates.affine import AffineCoordinates, LaplaceCoordinates, ScaledCoordinates
from diffsampler.coordinates.base import Coordinates, DensityInCoordinates, check_coordinates, check_space
from diffsampler.coordinates.mean_free import MeanFreeCoordinates
from diffsampler.coordinates.searched import SearchedCoordinates
from diffsampler.coordinates.supported import SupportCoordinates

__all__ = [
    "AffineCoordinates",
    "Coordinates",
    "DensityInCoordinates",
    "LaplaceCoordinates",
    "MeanFreeCoordinates",
    "ScaledCoordinates",
    "SearchedCoordinates",
    "SupportCoordinates",
    "check_coordinates",
    "check_space",
]
