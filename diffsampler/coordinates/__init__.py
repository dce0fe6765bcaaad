"""Where the sampler walks (z), and where the target lives (x)."""

from diffsampler.coordinates.affine import (
    AffineCoordinates,
    LaplaceCoordinates,
    ScaledCoordinates,
    TargetInCoordinates,
)
from diffsampler.coordinates.searched import SearchedCoordinates
from diffsampler.coordinates.supported import SupportCoordinates

__all__ = [
    "AffineCoordinates",
    "LaplaceCoordinates",
    "ScaledCoordinates",
    "SearchedCoordinates",
    "SupportCoordinates",
    "TargetInCoordinates",
]
