"""The Boltzmann density of a molecule, by OpenMM."""

from typing import Any

from diffsampler.energies import BoltzmannWeight
from diffsampler.molecules import OpenMMEnergy, boltzmann_constant, space_of_particles
from diffsampler.target import FunctionTarget
from targets._molecules import molecule_of

__all__ = ["OpenMMTarget"]


class OpenMMTarget(FunctionTarget):
    """exp(-E(x) / kT), where OpenMM computes the energy E of positions x in nm, flattened, and its forces.

    Any System without constraints and without a periodic box. x lives in `Particles`, if its energy stays the same when
    all atoms move alike; log Z is then that of configurations of mean 0, x in nm.

    Needs OpenMM: `pip install diffsampler[molecules]`. One configuration at a time, on the platform Reference; for many
    at once, on a GPU, with autograd, `ForceFieldTarget` has the usual terms in torch.

    Eastman et al., OpenMM 8, 2024, https://doi.org/10.1021/acs.jpcb.3c06662.

    Arguments:
        pdb: a PDB file with all hydrogens.
        forcefield: files of OpenMM's, such as ["amber96.xml", "amber96_obc.xml"], or paths.
        temperature: in K.
        workers: in how many processes to evaluate it, which stay; 0 for this one.
        system: an `openmm.System`, instead of a PDB file and a force field.
        positions: of that: n rows of three numbers in nm, or a quantity of OpenMM's.

    Attributes:
        molecule: the system, its positions in nm and its atoms' names.

    Raises:
        InputError: if OpenMM is missing, a file cannot be used, or the system is no density of all positions.
    """

    def __init__(
        self,
        pdb: str | None = None,
        forcefield: list[str] | None = None,
        temperature: float = 300.0,
        workers: int = 0,
        system: Any = None,
        positions: Any = None,
    ) -> None:
        molecule = molecule_of(type(self).__name__, pdb, forcefield, system, positions)
        energy = OpenMMEnergy(molecule.system)
        space = space_of_particles(lambda x: energy.evaluate(x, False).energy, molecule.positions)
        weight = BoltzmannWeight(energy, boltzmann_constant(temperature), workers, check=False)
        super().__init__(weight, molecule.positions.size, space=space)
        self.molecule = molecule
