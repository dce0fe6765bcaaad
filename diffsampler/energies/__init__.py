"""Energies that are computed outside of the library: how they are asked, in which processes, and what is checked."""

from diffsampler.energies.base import Energy, EnergyOfOne, Evaluated
from diffsampler.energies.boltzmann import BoltzmannWeight, TorchBoltzmannWeight
from diffsampler.energies.forces import check_forces
from diffsampler.energies.forms import read_energy
from diffsampler.energies.many import EnergyOfMany
from diffsampler.energies.workers import Workers

__all__ = [
    "BoltzmannWeight",
    "Energy",
    "EnergyOfMany",
    "EnergyOfOne",
    "Evaluated",
    "TorchBoltzmannWeight",
    "Workers",
    "check_forces",
    "read_energy",
]
