"""What a family's sampler says as a function of the context: log Z, and means."""

from diffsampler.curves.log_z_curve import LogZCurve, log_z_curve
from diffsampler.curves.thermodynamics import Thermodynamics, thermodynamics

__all__ = ["LogZCurve", "Thermodynamics", "log_z_curve", "thermodynamics"]
