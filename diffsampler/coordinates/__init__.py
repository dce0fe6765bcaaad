"""Where the sampler walks (z), and where the target lives (x)."""

from diffsampler.coordinates.affine import AffineCoordinates, LaplaceCoordinates, ScaledCoordinates
from diffsampler.coordinates.base import Coordinates, check_coordinates, check_space
from diffsampler.coordinates.bonds import chiral_atoms, z_matrix_from_bonds
from diffsampler.coordinates.family_on_space import FamilyOnSpace
from diffsampler.coordinates.fixed import FixedCoordinates
from diffsampler.coordinates.found import FoundCoordinates
from diffsampler.coordinates.internal import InternalCoordinates
from diffsampler.coordinates.mean_free import MeanFreeCoordinates
from diffsampler.coordinates.of_family import FamilyCoordinates
from diffsampler.coordinates.of_member import MemberCoordinates
from diffsampler.coordinates.of_reward import RewardCoordinates
from diffsampler.coordinates.on_space import SpaceCoordinates
from diffsampler.coordinates.searched import SearchedCoordinates
from diffsampler.coordinates.supported import SupportCoordinates
from diffsampler.coordinates.z_matrix import ZMatrix
from diffsampler.frames import DensityInCoordinates

__all__ = [
    "AffineCoordinates",
    "Coordinates",
    "DensityInCoordinates",
    "FamilyCoordinates",
    "FamilyOnSpace",
    "FixedCoordinates",
    "FoundCoordinates",
    "InternalCoordinates",
    "LaplaceCoordinates",
    "MeanFreeCoordinates",
    "MemberCoordinates",
    "RewardCoordinates",
    "ScaledCoordinates",
    "SearchedCoordinates",
    "SpaceCoordinates",
    "SupportCoordinates",
    "ZMatrix",
    "check_coordinates",
    "check_space",
    "chiral_atoms",
    "z_matrix_from_bonds",
]
