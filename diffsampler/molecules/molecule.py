"""An OpenMM System with positions, and what it must not have to be a density of all positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffsampler.errors import InputError, check_positive
from diffsampler.optional import import_extra

# The gas constant in kJ / (mol K), from the exact constants of the SI (2019).
GAS_CONSTANT = 8.31446261815324e-3


@dataclass(frozen=True)
class Molecule:
    """What is simulated, without a periodic box and without constraints.

    Attributes:
        system: the `openmm.System`.
        positions: in nm, float64, with shape (n, 3).
        names: of the atoms, OpenMM's, with residue and its number: "ALA2.CA"; empty where they are not known.
        elements: their symbols; empty where they are not known.
    """

    system: Any
    positions: np.ndarray
    names: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = self.system.getNumParticles()
        if self.positions.shape != (n, 3) or not np.isfinite(self.positions).all():
            raise InputError(f"positions must be finite, with shape {(n, 3)} in nm, got {self.positions.shape}.")
        if n < 2:
            raise InputError(f"a system must have at least two particles, got {n}.")
        if constraints := self.system.getNumConstraints():
            raise InputError(
                f"the system has {constraints} constraints, and no density of all positions: make it with "
                "constraints=None and rigidWater=False."
            )
        if self.system.usesPeriodicBoundaryConditions():
            raise InputError("the system has a periodic box: make it with nonbondedMethod=NoCutoff.")
        if any(self.system.isVirtualSite(i) for i in range(n)):
            raise InputError("the system has virtual sites, which are no coordinates.")

    @property
    def bonds(self) -> list[tuple[int, int]]:
        """Pairs of atoms that a HarmonicBondForce holds together: what internal coordinates are made from."""
        forces = [force for force in self.system.getForces() if type(force).__name__ == "HarmonicBondForce"]
        return [tuple(force.getBondParameters(k)[:2]) for force in forces for k in range(force.getNumBonds())]

    def atom(self, name: str) -> int:
        """The number of an atom, by its name."""
        if name not in self.names:
            raise InputError(f"there is no atom {name!r}; there are {', '.join(self.names)}.")
        return self.names.index(name)


def read_molecule(pdb: str, forcefield: Sequence[str], user: str) -> Molecule:
    """What a PDB file holds in a force field: no cutoff, no constraints.

    Arguments:
        pdb: the file; hydrogens must be in it.
        forcefield: names of files that come with OpenMM, or paths.
        user: what needs it, for messages.

    Raises:
        InputError: if there is no OpenMM, or a file cannot be used.
    """
    app, unit = import_extra("openmm.app", user, "molecules"), import_extra("openmm.unit", user, "molecules")
    if not Path(pdb).is_file():
        raise InputError(f"pdb must be a PDB file, got {str(pdb)!r}, which is none.")
    files = [forcefield] if isinstance(forcefield, str) else list(forcefield)
    try:
        structure = app.PDBFile(str(pdb))
    except Exception as error:
        raise InputError(f"pdb {str(pdb)!r} cannot be read: {error}") from error
    try:
        field = app.ForceField(*files)
    except Exception as error:
        raise InputError(
            f"forcefield must be force field files of OpenMM, such as [amber14-all.xml, implicit/obc1.xml], got "
            f"{files}: {error}"
        ) from error
    try:
        system = field.createSystem(
            structure.topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False, removeCMMotion=False
        )
    except Exception as error:
        raise InputError(f"{', '.join(files)} cannot describe {str(pdb)!r}: {error}") from error
    atoms = list(structure.topology.atoms())
    return Molecule(
        system,
        np.array(structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer)),
        tuple(f"{atom.residue.name}{atom.residue.id}.{atom.name}" for atom in atoms),
        tuple(atom.element.symbol if atom.element else "" for atom in atoms),
    )


def boltzmann_constant(temperature: float) -> float:
    """kT in kJ / mol at a temperature in K."""
    return GAS_CONSTANT * check_positive("temperature", temperature)
