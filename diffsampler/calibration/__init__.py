"""Simulation-based calibration: whether posteriors and evidences hold for data that a model makes itself."""

from diffsampler.calibration.calibrate import calibrate
from diffsampler.calibration.result import Calibration

__all__ = ["Calibration", "calibrate"]
