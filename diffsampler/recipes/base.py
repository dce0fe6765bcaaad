"""What a recipe is: all parts of a sampler and of its training, for those who name none or some."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from diffsampler.behaviours import Alternation, Behaviour, OnPolicy, SearchedPoints, Succession
from diffsampler.coordinates import Coordinates
from diffsampler.losses import LogVariance, Matching, Objective, Stages
from diffsampler.networks import Control, StateFlow
from diffsampler.processes import Process
from diffsampler.processes.grids import Grid
from diffsampler.spaces import Space
from diffsampler.target import Target


class Parts(NamedTuple):
    """What a sampler is made of; as in `Sampler`."""

    process: Callable[[Space], Process]
    control: Callable[[Process], Control]
    flow: Callable[[Process], StateFlow] | None
    grid: Grid | int
    coordinates: Coordinates | None


class Training(NamedTuple):
    """How it is trained; as in `SamplerModule`, and how many steps from Python lie between validations."""

    loss: Objective
    behaviour: Behaviour
    lr: float
    tolerance: float
    steps_per_epoch: int = 50


TOLERANCE = 0.05


def fit_then_sharpen(fitting: Objective, share_fitted: float, lr: float, steps_per_epoch: int = 50) -> Training:
    """A loss on draws of the search, then log-variance, on the sampler's own paths and on rolled-back ones in turns.

    Arguments:
        fitting: the loss.
        share_fitted: of all steps.
        lr, steps_per_epoch: as in `Training`.
    """
    sharpening = Alternation([OnPolicy(), SearchedPoints()])
    behaviour = Succession([SearchedPoints(), sharpening], [share_fitted, 1 - share_fitted])
    return Training(Stages([fitting, LogVariance()]), behaviour, lr, TOLERANCE, steps_per_epoch)


def fit_by_matching(num_transitions: int, lr: float, steps_per_epoch: int) -> Training:
    """Matching on draws of the search: a step on whole trajectories, which costs a hundred times as much, is left out.

    Arguments:
        num_transitions: as in `Matching`.
        lr, steps_per_epoch: as in `Training`.
    """
    return Training(Matching(num_transitions), SearchedPoints(), lr, TOLERANCE, steps_per_epoch)


class Recipe(ABC):
    """Defaults that belong together."""

    @abstractmethod
    def parts(self, target: Target) -> Parts:
        """Of a sampler of this target."""

    @abstractmethod
    def training(self) -> Training:
        """Of such a sampler: new objects at every call."""
