"""An energy in ASE."""

from typing import Any

import numpy as np

from diffsampler.energies import EnergyOfOne


class ASEEnergy(EnergyOfOne):
    """The potential energy of ASE's atoms in eV, of positions in Angstrom, flattened.

    Larsen et al., The atomic simulation environment, 2017, https://doi.org/10.1088/1361-648X/aa680e.

    Arguments:
        atoms: `ase.Atoms` with a calculator.
    """

    def __init__(self, atoms: Any) -> None:
        self.atoms = atoms

    def evaluate_one(self, x: np.ndarray, with_forces: bool) -> tuple[float, np.ndarray | None]:
        self.atoms.set_positions(x.reshape(-1, 3), apply_constraint=False)
        # One calculation is asked for both; the energy alone is often much cheaper.
        forces = self.atoms.get_forces(apply_constraint=False).reshape(-1) if with_forces else None
        return float(self.atoms.get_potential_energy()), forces
