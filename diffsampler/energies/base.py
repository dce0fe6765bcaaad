"""What an energy from outside is: arrays in, arrays out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from diffsampler.errors import InputError


@dataclass(frozen=True)
class Evaluated:
    """What an energy says of n configurations, in float64.

    Attributes:
        energy: with shape (n); NaN where it has raised.
        forces: -dE/dx, with shape (n, D), or None where they were not asked for.
        failure: the first of the errors that single configurations have raised.
    """

    energy: np.ndarray
    forces: np.ndarray | None = None
    failure: Exception | None = None

    @property
    def all_failed(self) -> bool:
        """Whether there is no configuration that has not raised."""
        return self.failure is not None and bool(np.isnan(self.energy).all())


class Energy(ABC):
    """An energy of configurations, and its forces.

    With `workers` it is sent to other processes: what cannot be sent, such as handles of a library, is made on first
    use there.

    Attributes:
        has_forces: whether it knows its forces.
    """

    has_forces: bool = True

    @abstractmethod
    def evaluate(self, x: np.ndarray, with_forces: bool) -> Evaluated:
        """Energies, and forces if asked for, of configurations x, float64 with shape (n, D), a copy."""


def far_out() -> np.errstate:
    """A context without NumPy's warnings of overflow: points so far out are the library's doing."""
    return np.errstate(over="ignore", invalid="ignore")


class EnergyOfOne(Energy):
    """An energy that takes one configuration at a time; one that raises is NaN."""

    @abstractmethod
    def evaluate_one(self, x: np.ndarray, with_forces: bool) -> tuple[float, np.ndarray | None]:
        """The energy and, if asked for, the forces, with shape (D), of a configuration, with shape (D)."""

    def evaluate(self, x: np.ndarray, with_forces: bool) -> Evaluated:
        energy = np.full(len(x), np.nan)
        forces = np.full(x.shape, np.nan) if with_forces else None
        failure = None
        with far_out():
            for i, one in enumerate(x):
                try:
                    energy[i], force = self.evaluate_one(one, with_forces)
                    if with_forces:
                        forces[i] = force
                except InputError:  # what it returns is of the wrong kind: no matter of this configuration
                    raise
                except Exception as error:
                    energy[i] = np.nan
                    failure = failure or error
        return Evaluated(energy, forces, failure)
