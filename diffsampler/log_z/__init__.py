"""log Z by importance weights: estimates, what speaks for and against them, verdicts."""

from diffsampler.log_z.difference import LogZDifference
from diffsampler.log_z.estimate import LogZEstimate, estimate_log_z
from diffsampler.log_z.pareto import pareto_khat
from diffsampler.log_z.verdict import GRADES, Verdict, judge
from diffsampler.log_z.weights import WeightSummary

__all__ = [
    "GRADES",
    "LogZDifference",
    "LogZEstimate",
    "Verdict",
    "WeightSummary",
    "estimate_log_z",
    "judge",
    "pareto_khat",
]
