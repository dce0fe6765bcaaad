"""Search, learn, correct, for particles."""

from functools import partial

from diffsampler.coordinates import SpaceCoordinates
from diffsampler.losses import Matching
from diffsampler.networks import LearnedVariance, PairForces, PreconditionedMLP
from diffsampler.processes import VariancePreserving
from diffsampler.processes.grids import GeometricGrid
from diffsampler.recipes.base import Parts, Recipe, Training, fit_then_sharpen
from diffsampler.target import Target, space_of

NUM_STEPS, LAST_STEP = 128, 0.015
WIDTH = 128
NUM_TRANSITIONS = 1024
SHARE_FITTED = 0.99  # a sharpening step takes some twenty times as long
FEW, SMALL_WIDTH, SMALL_BUMPS = 8, 32, 48  # particles: pairs of more cost too much for wide layers
LR = 2e-3
STEPS_PER_EPOCH = 200  # a validation takes as long


class ParticlesRecipe(Recipe):
    """Tempered SMC finds scale and draws; forces between pairs and widths of steps are matched to them, then sharpened.

    Draws are moved by random rotations, reflections and permutations, and matched at single times: one call of the
    network for each (`Matching`). Then log-variance, on whole trajectories.
    """

    def parts(self, target: Target) -> Parts:
        space = space_of(target)
        perceptron = partial(LearnedVariance, network=partial(PreconditionedMLP, width=WIDTH), width=WIDTH)
        size = {} if space.num_particles <= FEW else {"width": SMALL_WIDTH, "depth": 1, "num_bumps": SMALL_BUMPS}
        forces = partial(PairForces, use_score=target.differentiable, **size)
        control = forces if space.isotropic else perceptron
        grid = GeometricGrid(NUM_STEPS, LAST_STEP)
        return Parts(VariancePreserving, control, None, grid, SpaceCoordinates(target))

    def training(self) -> Training:
        return fit_then_sharpen(Matching(NUM_TRANSITIONS), SHARE_FITTED, LR, STEPS_PER_EPOCH)
