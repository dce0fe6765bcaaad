"""Trajectories: what they are, where they go, how probable they are. Plain functions of a `Dynamics`.

Everything here is in the sampler's own coordinates.
"""

from diffsampler.paths.dynamics import Dynamics, State
from diffsampler.paths.evaluation import evaluate, kernel_at, log_pf_of, log_uncontrolled_backward
from diffsampler.paths.forward_measure import ForwardMeasure
from diffsampler.paths.measure import PathMeasure
from diffsampler.paths.probability_flow import FlowDensity, ProbabilityFlow
from diffsampler.paths.records import Path, Trajectory
from diffsampler.paths.rollback import back_and_forth, rollback, rolled_back_log_weight
from diffsampler.paths.rollout import differentiable_rollout, rollout, weighted_rollout
from diffsampler.paths.sequential import resampled_rollout, sequential_rollout

__all__ = [
    "Dynamics",
    "FlowDensity",
    "ForwardMeasure",
    "Path",
    "PathMeasure",
    "ProbabilityFlow",
    "State",
    "Trajectory",
    "back_and_forth",
    "differentiable_rollout",
    "evaluate",
    "kernel_at",
    "log_pf_of",
    "log_uncontrolled_backward",
    "resampled_rollout",
    "rollback",
    "rolled_back_log_weight",
    "rollout",
    "sequential_rollout",
    "weighted_rollout",
]
