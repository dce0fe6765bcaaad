"""An energy in OpenMM."""

import os
from typing import Any

import numpy as np

from diffsampler.energies import EnergyOfOne
from diffsampler.optional import import_extra


class OpenMMEnergy(EnergyOfOne):
    """The potential energy of an OpenMM System in kJ / mol, of positions in nm, flattened.

    Reference is the platform that is fastest for tens of atoms: one core, double precision. A context is made on first
    use, in each process its own.

    Eastman et al., OpenMM 8, 2024, https://doi.org/10.1021/acs.jpcb.3c06662.

    Arguments:
        system: an `openmm.System`.
        platform: the name of OpenMM's platform.
    """

    def __init__(self, system: Any, platform: str = "Reference") -> None:
        self.system, self.platform = system, platform
        self._contexts: dict[int, Any] = {}  # by process

    def evaluate_one(self, x: np.ndarray, with_forces: bool) -> tuple[float, np.ndarray | None]:
        context = self._own_context()
        context.setPositions(x.reshape(-1, 3))
        state = context.getState(getEnergy=True, getForces=with_forces)
        # The numbers in OpenMM's own units, nm and kJ / mol: converting costs as much as computing.
        energy = state.getPotentialEnergy()._value
        return energy, state.getForces(asNumpy=True)._value.reshape(-1) if with_forces else None

    def __getstate__(self) -> dict[str, Any]:
        return {"system": self.system, "platform": self.platform}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _own_context(self) -> Any:
        process = os.getpid()
        # That of a process from which this one was forked stays: it would wait for ever for its threads to end.
        if process not in self._contexts:
            openmm = import_extra("openmm", type(self).__name__, "molecules")
            integrator = openmm.VerletIntegrator(0.001)  # which a context must have, and nobody uses
            platform = openmm.Platform.getPlatformByName(self.platform)
            self._contexts[process] = openmm.Context(self.system, integrator, platform)
        return self._contexts[process]
