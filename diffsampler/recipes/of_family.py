"""What a family alone gets."""

from functools import partial

from diffsampler.behaviours import Alternation, JointSamples, OnPolicy, SearchedMembers, SearchedPoints, Succession
from diffsampler.coordinates import FamilyCoordinates, FamilyOnSpace
from diffsampler.families import Joint
from diffsampler.losses import LogVariance, MaximumLikelihood, Stages
from diffsampler.networks import ConditionalControl, LearnedVariance, PreconditionedMLP
from diffsampler.processes import VariancePreserving
from diffsampler.recipes.base import Parts, Recipe, Training
from diffsampler.recipes.search_learn_correct import LR, NUM_STEPS, NUM_TRANSITIONS, SHARE_FITTED, WIDTH


class FamilyRecipe(Recipe):
    """`SearchLearnCorrect` for all members at once: searched at a few contexts, learned across.

    Draws of contexts in between are those of the searched ones, weighed. Networks, which see the context, are fitted to
    all by maximum likelihood, then sharpened by log-variance within groups of one context. Where a family has exact
    joint draws, these are fresh at every step.

    Arguments:
        has_joint_samples: whether it has.
    """

    def __init__(self, has_joint_samples: bool) -> None:
        self.has_joint_samples = has_joint_samples

    def parts(self, target: Joint) -> Parts:
        coordinates = FamilyCoordinates(target)
        control = partial(LearnedVariance, network=partial(PreconditionedMLP, width=WIDTH), width=WIDTH)
        return Parts(VariancePreserving, control, None, NUM_STEPS, coordinates)

    def training(self) -> Training:
        known, sharpening = SearchedPoints(), Alternation([OnPolicy(), SearchedMembers()])
        if self.has_joint_samples:
            known, sharpening = JointSamples(), OnPolicy()
        behaviour = Succession([known, sharpening], [SHARE_FITTED, 1 - SHARE_FITTED])
        loss = Stages([MaximumLikelihood(NUM_TRANSITIONS), LogVariance()])
        return Training(loss, behaviour, LR, tolerance=0.0)


class FamilyOnSpaceRecipe(Recipe):
    """What one member alone would get on its space, with networks that know the context, learned across searches.

    Arguments:
        of_one: the recipe of a member.
        has_joint_samples: as in `FamilyRecipe`.
    """

    def __init__(self, of_one: Recipe, has_joint_samples: bool) -> None:
        self.of_one, self.has_joint_samples = of_one, has_joint_samples

    def parts(self, target: Joint) -> Parts:
        usual = self.of_one.parts(target.family)
        control = partial(ConditionalControl, network=usual.control)
        return usual._replace(control=control, coordinates=FamilyOnSpace(target))

    def training(self) -> Training:
        usual = self.of_one.training()._replace(tolerance=0.0)
        known, sharpening = SearchedPoints(), Alternation([OnPolicy(), SearchedMembers()])
        if self.has_joint_samples:
            known, sharpening = JointSamples(), OnPolicy()
        if not isinstance(usual.loss, Stages):
            return usual._replace(behaviour=known)
        shares = [SHARE_FITTED, 1 - SHARE_FITTED]
        return usual._replace(behaviour=Succession([known, sharpening], shares))


class SimulationsRecipe(FamilyRecipe):
    """The same where no density is known: maximum likelihood on fresh joint draws, and no more."""

    def __init__(self) -> None:
        super().__init__(has_joint_samples=True)

    def training(self) -> Training:
        return Training(MaximumLikelihood(NUM_TRANSITIONS), JointSamples(), LR, tolerance=0.0)
