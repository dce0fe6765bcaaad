"""The Boltzmann density of atoms, by a calculator of ASE."""

from pathlib import Path
from typing import Any

from diffsampler.energies import BoltzmannWeight
from diffsampler.errors import InputError, check_positive
from diffsampler.molecules import ASEEnergy, space_of_particles
from diffsampler.optional import import_extra
from diffsampler.target import FunctionTarget

__all__ = ["ASETarget"]


class ASETarget(FunctionTarget):
    """exp(-E(x) / kT), where a calculator of ASE computes the energy E in eV of positions x in Angstrom, flattened.

    Atoms without constraints and without periodic directions. x lives in `Particles`, if its energy stays the same when
    all atoms move alike; log Z is then that of configurations of mean 0, x in Angstrom. Forces are compared with
    differences of the energy, once.

    Needs ASE: `pip install diffsampler[molecules]`.

    Larsen et al., The atomic simulation environment, 2017, https://doi.org/10.1088/1361-648X/aa680e.

    Arguments:
        atoms: `ase.Atoms`, with a calculator unless one is given, or a file that ASE reads.
        calculator: of ASE, or the dotted name of its class, such as "ase.calculators.lj.LennardJones".
        options: of that class.
        temperature: in K.
        workers: in how many processes to evaluate it, which stay; 0 for this one.

    Attributes:
        atoms: a copy, with the calculator.

    Raises:
        InputError: if ASE is missing, or the atoms are no density of all positions.
    """

    def __init__(
        self,
        atoms: Any,
        calculator: Any = None,
        options: dict[str, Any] | None = None,
        temperature: float = 300.0,
        workers: int = 0,
    ) -> None:
        units = import_extra("ase.units", type(self).__name__, "molecules")
        self_atoms = _read(atoms)
        self_atoms.calc = _made(calculator, options or {}) if calculator is not None else getattr(atoms, "calc", None)
        if self_atoms.calc is None:
            raise InputError("ASETarget needs atoms with a calculator, or a calculator.")
        if self_atoms.constraints:
            raise InputError(f"atoms must have no constraints, got {self_atoms.constraints}.")
        if self_atoms.pbc.any():
            raise InputError("atoms must have no periodic directions: set_pbc(False), if they are a cluster.")
        energy = ASEEnergy(self_atoms)
        positions = self_atoms.get_positions()
        space = space_of_particles(lambda x: energy.evaluate(x, False).energy, positions)
        weight = BoltzmannWeight(energy, units.kB * check_positive("temperature", temperature), workers)
        super().__init__(weight, positions.size, space=space)
        self.atoms = self_atoms


def _read(atoms: Any) -> Any:
    ase = import_extra("ase", "ASETarget", "molecules")
    if isinstance(atoms, str | Path):
        try:
            return import_extra("ase.io", "ASETarget", "molecules").read(atoms)
        except Exception as error:
            raise InputError(f"atoms must be a file that ASE reads, got {str(atoms)!r}: {error}") from error
    if not isinstance(atoms, ase.Atoms):
        raise InputError(f"atoms must be ase.Atoms or a file that ASE reads, got {type(atoms).__name__}.")
    return atoms.copy()


def _made(calculator: Any, options: dict[str, Any]) -> Any:
    if not isinstance(calculator, str):
        return calculator
    module, _, name = calculator.rpartition(".")
    try:
        return getattr(import_extra(module, "ASETarget", "molecules"), name)(**options)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"calculator {calculator!r} cannot be made: {error}") from error
