"""What fine-tuning by a reward gets."""

from diffsampler.behaviours import Alternation, OnPolicy, Succession, WeightedPaths
from diffsampler.losses import LogVariance, MaximumLikelihood, Stages
from diffsampler.recipes.base import Parts, Recipe, Training
from diffsampler.target import Target

NUM_TRANSITIONS = 2048
SHARE_FITTED = 0.5
LR, LR_FROM_MIXTURE = 1e-3, 2e-4


class FineTuning(Recipe):
    """The networks of a pretrained sampler are fitted to its own paths, weighed by the reward, then sharpened.

    By maximum likelihood on some transitions, which covers what the reward leaves of every mode, then by log-variance,
    on new paths and on weighed ones in turns. The reward is asked at end points alone.

    Arguments:
        pretrained: the parts of the sampler that is fine-tuned.
        lr: the learning rate; where a mixture has the way to the modes in closed form, a small one, since larger ones
            make weights less even than they were.
    """

    def __init__(self, pretrained: Parts, lr: float = LR) -> None:
        self.pretrained, self.lr = pretrained, lr

    def parts(self, target: Target) -> Parts:
        return self.pretrained

    def training(self) -> Training:
        weighted = WeightedPaths()
        behaviour = Succession([weighted, Alternation([OnPolicy(), weighted])], [SHARE_FITTED, 1 - SHARE_FITTED])
        loss = Stages([MaximumLikelihood(NUM_TRANSITIONS), LogVariance()])
        return Training(loss, behaviour, self.lr, tolerance=0.0)
