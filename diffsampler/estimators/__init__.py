"""Estimators: log Z from log-weights, with its interval and what can be said of its reliability."""

from diffsampler.estimators.log_z import LogZEstimate, estimate_log_z
from diffsampler.estimators.pareto import pareto_khat

__all__ = ["LogZEstimate", "estimate_log_z", "pareto_khat"]
