"""Search, learn, correct, for fields on a lattice."""

from diffsampler.coordinates import SpaceCoordinates
from diffsampler.networks import LatticeConvolutions
from diffsampler.processes import VariancePreserving
from diffsampler.recipes.base import Parts, Recipe, Training, fit_by_matching
from diffsampler.target import Target

NUM_STEPS = 64
NUM_TRANSITIONS = 512
STEPS_PER_EPOCH = 200  # a validation takes as long
LR = 3e-3


class LatticeRecipe(Recipe):
    """As `ParticlesRecipe`, with convolutions for the symmetry of a lattice."""

    def parts(self, target: Target) -> Parts:
        return Parts(VariancePreserving, LatticeConvolutions, None, NUM_STEPS, SpaceCoordinates(target))

    def training(self) -> Training:
        return fit_by_matching(NUM_TRANSITIONS, LR, STEPS_PER_EPOCH)
