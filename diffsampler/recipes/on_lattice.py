"""Search, learn, correct, for fields on a lattice."""

from diffsampler.behaviours import Alternation, OnPolicy, SearchedPoints, Succession
from diffsampler.coordinates import SpaceCoordinates
from diffsampler.losses import LogVariance, Matching, Stages
from diffsampler.networks import LatticeConvolutions
from diffsampler.processes import VariancePreserving
from diffsampler.recipes.base import Parts, Recipe, Training
from diffsampler.target import Target

NUM_STEPS = 64
NUM_TRANSITIONS = 1024
SHARE_FITTED, SHARE_SHARPENED = 0.95, 0.05  # a sharpening step takes some ten times as long
LR = 3e-3
TOLERANCE = 0.05


class LatticeRecipe(Recipe):
    """As `ParticlesRecipe`, with convolutions for the symmetry of a lattice."""

    def parts(self, target: Target) -> Parts:
        return Parts(VariancePreserving, LatticeConvolutions, None, NUM_STEPS, SpaceCoordinates(target))

    def training(self) -> Training:
        loss = Stages([Matching(NUM_TRANSITIONS), LogVariance()])
        sharpening = Alternation([OnPolicy(), SearchedPoints()])
        behaviour = Succession([SearchedPoints(), sharpening], [SHARE_FITTED, SHARE_SHARPENED])
        return Training(loss, behaviour, LR, TOLERANCE)
