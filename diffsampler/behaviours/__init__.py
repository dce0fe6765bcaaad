"""Behaviours: where training states come from. They return states only; densities are always the current model's."""

from diffsampler.behaviours.base import Behaviour
from diffsampler.behaviours.combinations import Alternation, Mixture, Succession
from diffsampler.behaviours.known_points import ExpertSamples, SearchedPoints
from diffsampler.behaviours.local_search import BackAndForth, LocalSearch, MarkovChainSearch
from diffsampler.behaviours.of_families import JointSamples, SearchedMembers
from diffsampler.behaviours.priorities import (
    ImportancePriority,
    Priority,
    RankPriority,
    RewardPriority,
    UniformPriority,
)
from diffsampler.behaviours.replay import Replay
from diffsampler.behaviours.rollouts import Exploration, OnPolicy
from diffsampler.behaviours.sequential import SequentialMonteCarlo
from diffsampler.behaviours.weighted_paths import WeightedPaths

__all__ = [
    "Alternation",
    "BackAndForth",
    "Behaviour",
    "ExpertSamples",
    "Exploration",
    "ImportancePriority",
    "JointSamples",
    "LocalSearch",
    "MarkovChainSearch",
    "Mixture",
    "OnPolicy",
    "Priority",
    "RankPriority",
    "Replay",
    "RewardPriority",
    "SearchedMembers",
    "SearchedPoints",
    "SequentialMonteCarlo",
    "Succession",
    "UniformPriority",
    "WeightedPaths",
]
