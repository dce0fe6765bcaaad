"""The Boltzmann density of a molecule, by the terms of its force field in torch."""

from typing import Any

import torch
from torch import Tensor

from diffsampler.molecules import MolecularForceField, boltzmann_constant, space_of_particles
from diffsampler.target import Target
from targets._molecules import molecule_of

__all__ = ["ForceFieldTarget"]


class ForceFieldTarget(Target):
    """exp(-E(x) / kT) of positions x in nm, flattened: bonds, angles, torsions, nonbonded pairs and OBC solvent.

    The terms of an OpenMM System without constraints, cutoff or periodic box, read once: the energy is OpenMM's to
    rounding, for many configurations at once, on any device, with autograd. Forces that are none of these are refused
    by name; `OpenMMTarget` takes any. Space and log Z are as there.

    Needs OpenMM to read files: `pip install diffsampler[molecules]`.

    Arguments:
        pdb: a PDB file with all hydrogens.
        forcefield: files of OpenMM's, such as ["amber96.xml", "amber96_obc.xml"], or paths.
        temperature: in K.
        system: an `openmm.System`, instead of a PDB file and a force field.
        positions: of that: n rows of three numbers in nm, or a quantity of OpenMM's.

    Attributes:
        molecule: the system, its positions in nm and its atoms' names.
        force_field: the energy in kJ / mol, a module of its own.

    Raises:
        InputError: if OpenMM is missing, a file cannot be used, or the system has a force that is not known in torch.
    """

    def __init__(
        self,
        pdb: str | None = None,
        forcefield: list[str] | None = None,
        temperature: float = 300.0,
        system: Any = None,
        positions: Any = None,
    ) -> None:
        molecule = molecule_of(type(self).__name__, pdb, forcefield, system, positions)
        super().__init__(molecule.positions.size)
        self.molecule = molecule
        self.temperature = boltzmann_constant(temperature)
        self.force_field = MolecularForceField(molecule.system)
        with torch.no_grad():
            self.space = space_of_particles(lambda x: self.force_field(torch.from_numpy(x)).numpy(), molecule.positions)

    def log_prob(self, x: Tensor) -> Tensor:
        return -self.force_field(x) / self.temperature
