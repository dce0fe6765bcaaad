"""Energies that take many configurations at once, of which some may raise."""

from abc import abstractmethod

import numpy as np

from diffsampler.energies.base import Energy, Evaluated, far_out
from diffsampler.errors import InputError

BATCH_SIZE = 512  # what its program makes of a batch stays in cache


class EnergyOfMany(Energy):
    """An energy that takes many configurations at once.

    A batch that raises is asked for again in halves, until those that raise stand alone: these are NaN.
    """

    @abstractmethod
    def evaluate_many(self, x: np.ndarray, with_forces: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Energies, with shape (n), and if asked for forces, with shape (n, D), of x, with shape (n, D)."""

    def evaluate(self, x: np.ndarray, with_forces: bool) -> Evaluated:
        energy = np.full(len(x), np.nan)
        forces = np.full(x.shape, np.nan) if with_forces else None
        failure: Exception | None = None
        parts = [slice(start, min(start + BATCH_SIZE, len(x))) for start in range(0, len(x), BATCH_SIZE)]
        with far_out():
            while parts:
                part = parts.pop()
                try:
                    energy[part], force = self.evaluate_many(x[part], with_forces)
                    if with_forces:
                        forces[part] = force
                except InputError:  # no matter of these configurations
                    raise
                except Exception as error:
                    failure = failure or error
                    middle = (part.start + part.stop) // 2
                    if middle > part.start:
                        parts += [slice(part.start, middle), slice(middle, part.stop)]
        return Evaluated(energy, forces, failure)
