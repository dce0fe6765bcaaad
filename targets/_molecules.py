"""What targets of molecules share: how they are named, and plain errors where they are not."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffsampler.errors import InputError
from diffsampler.molecules import Molecule, read_molecule

__all__ = ["molecule_of", "positions_in_nm"]


def molecule_of(user: str, pdb: str | None, forcefield: Sequence[str] | None, system: Any, positions: Any) -> Molecule:
    """From a PDB file and a force field, or from a System and positions."""
    given = {"pdb": pdb, "forcefield": forcefield, "system": system, "positions": positions}
    named = [name for name, value in given.items() if value is not None]
    if named == ["pdb", "forcefield"]:
        return read_molecule(pdb, forcefield, user)
    if named == ["system", "positions"]:
        return Molecule(system, positions_in_nm(positions))
    raise InputError(
        f"{user} needs pdb and forcefield, such as pdb=peptide.pdb, forcefield=[amber96.xml, amber96_obc.xml], or a "
        f"system and positions in nm; got {' and '.join(named) or 'none of them'}."
    )


def positions_in_nm(positions: Any) -> np.ndarray:
    """Float64, with shape (n, 3), from an array in nm or a quantity of OpenMM's."""
    if hasattr(positions, "value_in_unit_system"):
        from openmm import unit

        positions = positions.value_in_unit(unit.nanometer)
    try:
        array = np.array([list(row) for row in positions], dtype=np.float64)
        return array.reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise InputError("positions must be n rows of three numbers in nm, or a quantity of OpenMM's.") from error
