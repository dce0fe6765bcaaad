"""The energy of an OpenMM System as terms in torch."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from diffsampler.errors import InputError
from diffsampler.molecules.bonded import HarmonicAngles, HarmonicBonds, PeriodicTorsions, Term
from diffsampler.molecules.nonbonded import GeneralisedBorn, Nonbonded

READERS: dict[str, Callable[[Any], Term]] = {
    "HarmonicBondForce": HarmonicBonds.read,
    "HarmonicAngleForce": HarmonicAngles.read,
    "PeriodicTorsionForce": PeriodicTorsions.read,
    "NonbondedForce": Nonbonded.read,
    "GBSAOBCForce": GeneralisedBorn.read,
}
WITHOUT_ENERGY = {"CMMotionRemover"}


class MolecularForceField(nn.Module):
    """The potential energy in kJ / mol of positions in nm, for many configurations at once, on any device.

    Read once from an `openmm.System`: HarmonicBondForce, HarmonicAngleForce, PeriodicTorsionForce, NonbondedForce and
    GBSAOBCForce without cutoff. OpenMM is not needed afterwards.

    Arguments:
        system: the System.

    Raises:
        InputError: if it has a force that is none of these.
    """

    def __init__(self, system: Any) -> None:
        super().__init__()
        forces = [force for force in system.getForces() if type(force).__name__ not in WITHOUT_ENERGY]
        if unknown := sorted({type(force).__name__ for force in forces} - set(READERS)):
            raise InputError(
                f"{', '.join(unknown)} is not known in torch; known are {', '.join(READERS)}. OpenMMTarget takes any."
            )
        self.terms = nn.ModuleList(READERS[type(force).__name__](force) for force in forces)

    def forward(self, x: Tensor) -> Tensor:
        """With shape (*), for positions with shape (*, 3 n), flattened."""
        positions = x.unflatten(-1, (-1, 3))
        return sum(term(positions) for term in self.terms)
