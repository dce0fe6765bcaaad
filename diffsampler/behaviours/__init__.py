"""Behaviours: where training states come from. They return states only; densities are always the current model's."""

from diffsampler.behaviours.base import Behaviour
from diffsampler.behaviours.exploration import Exploration
from diffsampler.behaviours.on_policy import OnPolicy

__all__ = ["Behaviour", "Exploration", "OnPolicy"]
