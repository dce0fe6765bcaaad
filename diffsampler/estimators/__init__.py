"""log Z and what supports it: importance weights, and references without learning."""

from diffsampler.estimators.components import GaussianComponents
from diffsampler.estimators.log_z import LogZEstimate, estimate_log_z
from diffsampler.estimators.moves import HamiltonianMove, RandomWalkMove
from diffsampler.estimators.pareto import pareto_khat
from diffsampler.estimators.reference import Replicates, reference
from diffsampler.estimators.tempering import Annealed, ais, reverse_ais, smc
from diffsampler.estimators.verdict import GRADES, Verdict, judge
from diffsampler.estimators.weights import WeightSummary

__all__ = [
    "GRADES",
    "Annealed",
    "GaussianComponents",
    "HamiltonianMove",
    "LogZEstimate",
    "RandomWalkMove",
    "Replicates",
    "Verdict",
    "WeightSummary",
    "ais",
    "estimate_log_z",
    "judge",
    "pareto_khat",
    "reference",
    "reverse_ais",
    "smc",
]
