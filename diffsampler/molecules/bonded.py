"""Bonds, angles and torsions of an OpenMM System, in torch: nm, radians, kJ / mol."""

from typing import Any

import torch
from torch import Tensor, nn

from diffsampler.molecules.geometry import angle, dihedral, distance


class Term(nn.Module):
    """A sum over groups of atoms, read from a force of an OpenMM System.

    Arguments:
        atoms: the numbers of the atoms, one row a group.
        parameters: what the energy of one group depends on besides, by name; one number a group each.
    """

    def __init__(self, atoms: list[list[int]], **parameters: list[float]) -> None:
        super().__init__()
        columns = torch.tensor(atoms, dtype=torch.long).reshape(len(atoms), -1).T.contiguous()
        self.register_buffer("atoms", columns, persistent=False)
        for name, values in parameters.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)

    def like(self, name: str, x: Tensor) -> Tensor:
        """A parameter in the dtype of x."""
        return getattr(self, name).to(x.dtype)


class HarmonicBonds(Term):
    """sum k (r - r_0)^2 / 2."""

    @classmethod
    def read(cls, force: Any) -> "HarmonicBonds":
        """From a HarmonicBondForce."""
        rows = [force.getBondParameters(i) for i in range(force.getNumBonds())]
        return cls([row[:2] for row in rows], length=numbers(rows, 2), strength=numbers(rows, 3))

    def forward(self, positions: Tensor) -> Tensor:
        """With shape (*), for positions with shape (*, n, 3)."""
        stretch = distance(positions, *self.atoms) - self.like("length", positions)
        return 0.5 * (stretch.square() * self.like("strength", positions)).sum(-1)


class HarmonicAngles(Term):
    """sum k (theta - theta_0)^2 / 2."""

    @classmethod
    def read(cls, force: Any) -> "HarmonicAngles":
        """From a HarmonicAngleForce."""
        rows = [force.getAngleParameters(i) for i in range(force.getNumAngles())]
        return cls([row[:3] for row in rows], rest=numbers(rows, 3), strength=numbers(rows, 4))

    def forward(self, positions: Tensor) -> Tensor:
        """With shape (*), for positions with shape (*, n, 3)."""
        bend = angle(positions, *self.atoms) - self.like("rest", positions)
        return 0.5 * (bend.square() * self.like("strength", positions)).sum(-1)


class PeriodicTorsions(Term):
    """sum k (1 + cos(n phi - phi_0))."""

    @classmethod
    def read(cls, force: Any) -> "PeriodicTorsions":
        """From a PeriodicTorsionForce."""
        rows = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
        parameters = {"periodicity": numbers(rows, 4), "phase": numbers(rows, 5), "strength": numbers(rows, 6)}
        return cls([row[:4] for row in rows], **parameters)

    def forward(self, positions: Tensor) -> Tensor:
        """With shape (*), for positions with shape (*, n, 3)."""
        turned = self.like("periodicity", positions) * dihedral(positions, *self.atoms)
        return (self.like("strength", positions) * (1 + (turned - self.like("phase", positions)).cos())).sum(-1)


def numbers(rows: list[Any], column: int) -> list[float]:
    """A column of parameters, in OpenMM's own units: nm, radians, kJ / mol, elementary charges."""
    return [float(getattr(row[column], "_value", row[column])) for row in rows]
