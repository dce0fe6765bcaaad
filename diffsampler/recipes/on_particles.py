"""Search, learn, correct, for particles."""

from functools import partial

from diffsampler.coordinates import SpaceCoordinates
from diffsampler.networks import LearnedVariance, PairForces, PreconditionedMLP
from diffsampler.processes import VariancePreserving
from diffsampler.processes.grids import GeometricGrid
from diffsampler.recipes.base import Parts, Recipe, Training, fit_by_matching
from diffsampler.target import Target, space_of

WIDTH = 128
NUM_TRANSITIONS = 1024
LR = 2e-3
STEPS_PER_EPOCH = 400  # a validation takes as long
FEW = 8  # particles: pairs of more cost too much for wide layers, and are sooner stiff for long steps
NUM_STEPS, LAST_STEP = 128, 0.015
MANY_STEPS, LAST_OF_MANY, SMALL_WIDTH, SMALL_BUMPS = 256, 0.0075, 16, 48


class ParticlesRecipe(Recipe):
    """Tempered SMC finds scale and draws; forces between pairs, and widths of steps, are matched to them.

    Draws are moved by random rotations, reflections and permutations, and matched at single times: one call of the
    network for each (`Matching`).
    """

    def parts(self, target: Target) -> Parts:
        space = space_of(target)
        perceptron = partial(LearnedVariance, network=partial(PreconditionedMLP, width=WIDTH), width=WIDTH)
        is_small = space.num_particles <= FEW
        size = {} if is_small else {"width": SMALL_WIDTH, "depth": 1, "num_bumps": SMALL_BUMPS}
        forces = partial(PairForces, use_score=target.differentiable, **size)
        control = forces if space.isotropic else perceptron
        grid = GeometricGrid(NUM_STEPS, LAST_STEP) if is_small else GeometricGrid(MANY_STEPS, LAST_OF_MANY)
        return Parts(VariancePreserving, control, None, grid, SpaceCoordinates(target))

    def training(self) -> Training:
        return fit_by_matching(NUM_TRANSITIONS, LR, STEPS_PER_EPOCH)
