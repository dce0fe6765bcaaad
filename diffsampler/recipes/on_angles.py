"""Search, learn, correct, for angles, and for angles and reals."""

from functools import partial

from diffsampler.coordinates import SpaceCoordinates
from diffsampler.losses import Matching, MaximumLikelihood, Objective
from diffsampler.networks import FourierMLP, LatticeConvolutions, LearnedVariance
from diffsampler.processes import Process, ProductProcess, Torus
from diffsampler.processes.grids import GeometricGrid
from diffsampler.recipes.base import Parts, Recipe, Training, fit_by_matching, fit_then_sharpen
from diffsampler.target import Target

NUM_STEPS, LAST_STEP = 32, 0.003
WIDTH = 128
NUM_TRANSITIONS, SHARE_FITTED = 2048, 0.75
LATTICE_STEPS, LAST_ON_LATTICE = 512, 0.001
LATTICE_WIDTH, LATTICE_TRANSITIONS = 16, 512
STEPS_PER_EPOCH = 200  # a validation takes as long
LR = 3e-3


class AnglesRecipe(Recipe):
    """Tempered SMC from the uniform density finds draws; a process on the torus is fitted to them, then sharpened.

    By matching at single times, with learned widths, then by log-variance on whole trajectories.
    """

    process: type[Process] = Torus
    fitting: type[Objective] = Matching

    def parts(self, target: Target) -> Parts:
        control = partial(LearnedVariance, network=partial(FourierMLP, width=WIDTH), width=WIDTH)
        grid = GeometricGrid(NUM_STEPS, LAST_STEP)
        return Parts(self.process, control, None, grid, SpaceCoordinates(target))

    def training(self) -> Training:
        return fit_then_sharpen(self.fitting(NUM_TRANSITIONS), SHARE_FITTED, LR)


class AnglesAndRealsRecipe(AnglesRecipe):
    """The same for angles beside reals, by maximum likelihood.

    On alanine dipeptide matching has draws with atoms too near: an ELBO of -517 instead of -187, an ESS of 7 % for 9.
    """

    process = ProductProcess
    fitting = MaximumLikelihood


class AngleLatticeRecipe(Recipe):
    """For angles on a lattice: convolutions, and more steps, whose noise knows no direction; matched alone.

    Half of the links' directions are gauge transformations, which no energy holds: each step's one width is wrong for
    them or for the rest. Of one network for U(1) on 8 x 8, the ELBO is 0.8 nats lower by 128 steps than by 256.
    """

    def parts(self, target: Target) -> Parts:
        control = partial(LatticeConvolutions, width=LATTICE_WIDTH)
        grid = GeometricGrid(LATTICE_STEPS, LAST_ON_LATTICE)
        return Parts(Torus, control, None, grid, SpaceCoordinates(target))

    def training(self) -> Training:
        return fit_by_matching(LATTICE_TRANSITIONS, LR, STEPS_PER_EPOCH)
