"""Training, by Lightning."""

from diffsampler.training.data import TrajectoryCounts
from diffsampler.training.fit import fit
from diffsampler.training.module import SamplerModule

__all__ = ["SamplerModule", "TrajectoryCounts", "fit"]
