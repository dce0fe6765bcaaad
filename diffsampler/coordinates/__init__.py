"""Where the sampler walks (z), and where the target lives (x)."""

from diffsampler.coordinates.affine import (
    AffineCoordinates,
    LaplaceCoordinates,
    ScaledCoordinates,
    TargetInCoordinates,
)
from diffsampler.coordinates.searched import SearchedCoordinates

__all__ = ["AffineCoordinates", "LaplaceCoordinates", "ScaledCoordinates", "SearchedCoordinates", "TargetInCoordinates"]
