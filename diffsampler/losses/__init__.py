"""Objectives: what training minimises; most vanish, or are least, where balance holds. One file each."""

from diffsampler.losses.adjoint_matching import AdjointMatching
from diffsampler.losses.base import Objective, TrajectoryLoss
from diffsampler.losses.detailed_balance import DetailedBalance
from diffsampler.losses.end_points import EndPointRegression
from diffsampler.losses.guided_trajectory_balance import GuidedTrajectoryBalance
from diffsampler.losses.labels import (
    Alternatives,
    BradleyTerryLabels,
    HardLabels,
    Labels,
    PairLabels,
    ParetoLabels,
    Preferences,
)
from diffsampler.losses.learned_decomposition import LearnedDecomposition
from diffsampler.losses.log_variance import LogVariance
from diffsampler.losses.matching import Matching
from diffsampler.losses.maximum_likelihood import MaximumLikelihood
from diffsampler.losses.order_preserving import OrderPreserving
from diffsampler.losses.pair_balance import ChunkBalance, LengthBalance, MatrixBalance, PairBalance, laplacian
from diffsampler.losses.reverse_kl import PathwiseReverseKL, ScoreFunctionReverseKL
from diffsampler.losses.stages import Stages
from diffsampler.losses.sub_trajectory_balance import SubTrajectoryBalance
from diffsampler.losses.trajectory_balance import TrajectoryBalance
from diffsampler.losses.trust_region_log_variance import TrustRegionLogVariance
from diffsampler.renamed import missing_name

__all__ = [
    "AdjointMatching",
    "Alternatives",
    "BradleyTerryLabels",
    "ChunkBalance",
    "DetailedBalance",
    "EndPointRegression",
    "GuidedTrajectoryBalance",
    "HardLabels",
    "Labels",
    "LearnedDecomposition",
    "LengthBalance",
    "LogVariance",
    "MatrixBalance",
    "Matching",
    "MaximumLikelihood",
    "Objective",
    "OrderPreserving",
    "PairBalance",
    "PairLabels",
    "ParetoLabels",
    "PathwiseReverseKL",
    "Preferences",
    "ScoreFunctionReverseKL",
    "Stages",
    "SubTrajectoryBalance",
    "TrajectoryBalance",
    "TrajectoryLoss",
    "TrustRegionLogVariance",
    "laplacian",
]
__getattr__ = missing_name(__name__, __all__)
