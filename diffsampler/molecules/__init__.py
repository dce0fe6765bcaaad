"""Energies of molecules: in OpenMM, in ASE, and the terms of an OpenMM System in torch.

Neither program is needed to import this: they are the optional extra `molecules`.
"""

from diffsampler.molecules.ase_energy import ASEEnergy
from diffsampler.molecules.force_field import MolecularForceField
from diffsampler.molecules.geometry import angle, dihedral, distance
from diffsampler.molecules.molecule import Molecule, boltzmann_constant, read_molecule
from diffsampler.molecules.openmm_energy import OpenMMEnergy
from diffsampler.molecules.symmetry import space_of_particles

__all__ = [
    "ASEEnergy",
    "MolecularForceField",
    "Molecule",
    "OpenMMEnergy",
    "angle",
    "boltzmann_constant",
    "dihedral",
    "distance",
    "read_molecule",
    "space_of_particles",
]
