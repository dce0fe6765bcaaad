"""Search, learn, correct, for angles, and for angles and reals."""

from functools import partial

from diffsampler.coordinates import SpaceCoordinates
from diffsampler.losses import MaximumLikelihood
from diffsampler.networks import FourierMLP, LatticeConvolutions, LearnedVariance
from diffsampler.processes import ProductProcess, Torus
from diffsampler.processes.grids import GeometricGrid
from diffsampler.recipes.base import Parts, Recipe, Training, fit_then_sharpen
from diffsampler.spaces import Lattice
from diffsampler.target import Target

NUM_STEPS, LAST_STEP = 32, 0.003
WIDTH = 128
LR = 3e-3


class AnglesRecipe(Recipe):
    """Tempered SMC from the uniform density finds draws; a process on the torus is fitted to them, then sharpened.

    By maximum likelihood, with learned widths, then by log-variance. Angles on a lattice get convolutions.
    """

    num_transitions = 2048
    share_fitted = 0.75  # of all steps; the others sharpen

    def parts(self, target: Target) -> Parts:
        coordinates = SpaceCoordinates(target)
        space, grid = coordinates.space, GeometricGrid(NUM_STEPS, LAST_STEP)
        process = Torus if space.is_periodic else ProductProcess
        perceptron = partial(LearnedVariance, network=partial(FourierMLP, width=WIDTH), width=WIDTH)
        control = LatticeConvolutions if isinstance(space, Lattice) else perceptron
        return Parts(process, control, None, grid, coordinates)

    def training(self) -> Training:
        return fit_then_sharpen(MaximumLikelihood(self.num_transitions), self.share_fitted, LR)


class AngleLatticeRecipe(AnglesRecipe):
    """The same where a step of sharpening, by convolutions on whole trajectories, takes some ten times as long."""

    num_transitions = 1024
    share_fitted = 0.95
