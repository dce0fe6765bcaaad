"""Search, learn, correct, for fields on a lattice."""

from diffsampler.coordinates import SpaceCoordinates
from diffsampler.losses import Matching
from diffsampler.networks import LatticeConvolutions
from diffsampler.processes import VariancePreserving
from diffsampler.recipes.base import Parts, Recipe, Training, fit_then_sharpen
from diffsampler.target import Target

NUM_STEPS = 64
NUM_TRANSITIONS = 512
SHARE_FITTED = 0.98  # a sharpening step takes some twenty times as long
LR = 3e-3


class LatticeRecipe(Recipe):
    """As `ParticlesRecipe`, with convolutions for the symmetry of a lattice."""

    def parts(self, target: Target) -> Parts:
        return Parts(VariancePreserving, LatticeConvolutions, None, NUM_STEPS, SpaceCoordinates(target))

    def training(self) -> Training:
        return fit_then_sharpen(Matching(NUM_TRANSITIONS), SHARE_FITTED, LR)
