"""Search, learn, correct: the recipe where nothing but the target is given."""

from functools import partial

from diffsampler.coordinates import SearchedCoordinates
from diffsampler.losses import MaximumLikelihood
from diffsampler.networks import LearnedVariance, MixtureControl, PreconditionedMLP
from diffsampler.processes import VariancePreserving
from diffsampler.recipes.base import Parts, Recipe, Training, fit_then_sharpen
from diffsampler.target import Target

NUM_STEPS = 32
WIDTH = 128
NUM_TRANSITIONS = 2048
SHARE_FITTED = 0.75
# Twice as much makes the averaged weights noisy, a third leaves the fit unfinished after 2000 steps.
LR = 3e-3


class SearchLearnCorrect(Recipe):
    """A search without learning (`SearchedCoordinates`) finds place, scale and draws of the target.

    A score-free variance-preserving process with learned means and widths is fitted to those draws by maximum
    likelihood, without a single target evaluation, then sharpened by log-variance, on its own paths and on rolled-back
    ones in turns. Importance weights correct what is left.
    """

    def parts(self, target: Target) -> Parts:
        coordinates = SearchedCoordinates(target)
        learned = partial(LearnedVariance, network=partial(PreconditionedMLP, width=WIDTH), width=WIDTH)
        control = partial(MixtureControl, network=learned, mixture=coordinates.get_mixture, step=1 / NUM_STEPS)
        return Parts(VariancePreserving, control, None, NUM_STEPS, coordinates)

    def training(self) -> Training:
        return fit_then_sharpen(MaximumLikelihood(NUM_TRANSITIONS), SHARE_FITTED, LR)
