"""What a family's sampler says as a function of the context: log Z, means, and trade-offs."""

from diffsampler.curves.log_z_curve import LogZCurve, log_z_curve
from diffsampler.curves.pareto_front import ParetoFront, pareto_front
from diffsampler.curves.thermodynamics import Thermodynamics, thermodynamics
from diffsampler.dominance import hypervolume, non_dominated

__all__ = [
    "LogZCurve",
    "ParetoFront",
    "Thermodynamics",
    "hypervolume",
    "log_z_curve",
    "non_dominated",
    "pareto_front",
    "thermodynamics",
]
