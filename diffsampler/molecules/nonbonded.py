"""Pairs of an OpenMM System in torch: Lennard-Jones, Coulomb, and generalised Born solvent."""

import math
from typing import Any

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.molecules.bonded import Term, numbers
from diffsampler.molecules.geometry import distance

# 1 / (4 pi epsilon_0) in kJ nm / (mol e^2), as OpenMM has it.
COULOMB = 138.93545764438198
# Onufriev, Bashford & Case, 2004, model II; the offset of radii and the probe's radius in nm.
ALPHA, BETA, GAMMA = 1.0, 0.8, 4.85
OFFSET, PROBE = 0.009, 0.14


class Nonbonded(Term):
    """sum over pairs i < j of 4 epsilon ((sigma / r)^12 - (sigma / r)^6) + q_i q_j / (4 pi epsilon_0 r), each once.

    Pairs that the force lists as exceptions have parameters of their own.
    """

    @classmethod
    def read(cls, force: Any) -> "Nonbonded":
        """From a NonbondedForce without cutoff.

        Raises:
            InputError: if it has a cutoff, or parameters that change.
        """
        if force.getNonbondedMethod() != force.NoCutoff:
            raise InputError("NonbondedForce must have nonbondedMethod=NoCutoff.")
        if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
            raise InputError("NonbondedForce must have no parameter offsets.")
        n = force.getNumParticles()
        rows = [force.getParticleParameters(i) for i in range(n)]
        charge, sigma, epsilon = (numbers(rows, column) for column in range(3))
        # Lorentz and Berthelot's mixing
        pairs = {
            (i, j): (charge[i] * charge[j], 0.5 * (sigma[i] + sigma[j]), math.sqrt(epsilon[i] * epsilon[j]))
            for i in range(n)
            for j in range(i + 1, n)
        }
        for k in range(force.getNumExceptions()):
            i, j, *parameters = force.getExceptionParameters(k)
            pairs[min(i, j), max(i, j)] = tuple(numbers([parameters], column)[0] for column in range(3))
        kept = {pair: values for pair, values in pairs.items() if values[0] or values[2]}
        product, sigma, epsilon = (
            (list(column) for column in zip(*kept.values(), strict=True)) if kept else ([], [], [])
        )
        return cls([list(pair) for pair in kept], product=product, sigma=sigma, epsilon=epsilon)

    def forward(self, positions: Tensor) -> Tensor:
        """With shape (*), for positions with shape (*, n, 3)."""
        inverse = distance(positions, *self.atoms).reciprocal()
        sixth = _sixth_power(self.like("sigma", positions) * inverse)
        lennard_jones = 4 * self.like("epsilon", positions) * (sixth.square() - sixth)
        return (lennard_jones + COULOMB * self.like("product", positions) * inverse).sum(-1)


class GeneralisedBorn(Term):
    """The solvent of Onufriev, Bashford and Case, with a surface term of the accessible area (ACE).

    -sum over i, j of q_i q_j / f(r_ij) times (1 / epsilon_in - 1 / epsilon_out) / (8 pi epsilon_0), where f^2 = r^2 +
    B_i B_j exp(-r^2 / (4 B_i B_j)) and Born radii B come from the overlaps of spheres (Hawkins, Cramer & Truhlar).

    Onufriev, Bashford & Case, Exploring protein native states and large-scale conformational changes with a modified
    generalized Born model, 2004, https://doi.org/10.1002/prot.20033; equations as in OpenMM's theory manual,
    GBSAOBCForce.
    """

    @classmethod
    def read(cls, force: Any) -> "GeneralisedBorn":
        """From a GBSAOBCForce without cutoff.

        Raises:
            InputError: if it has a cutoff.
        """
        if force.getNonbondedMethod() != force.NoCutoff:
            raise InputError("GBSAOBCForce must have nonbondedMethod=NoCutoff.")
        rows = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
        charge, radius, scale = (numbers(rows, column) for column in range(3))
        term = cls([[i] for i in range(len(rows))], charge=charge, radius=radius, scale=scale)
        term.factor = -0.5 * COULOMB * (1 / force.getSoluteDielectric() - 1 / force.getSolventDielectric())
        term.tension = 4 * math.pi * float(force.getSurfaceAreaEnergy()._value)
        return term

    def forward(self, positions: Tensor) -> Tensor:
        """With shape (*), for positions with shape (*, n, 3)."""
        radius, charge = self.like("radius", positions), self.like("charge", positions)
        difference = positions.unsqueeze(-2) - positions.unsqueeze(-3)
        squared = difference.square().sum(-1)
        itself = torch.eye(len(radius), dtype=torch.bool, device=positions.device)
        born = self._born_radii(torch.where(itself, 1.0, squared).sqrt(), itself)
        product = born.unsqueeze(-1) * born.unsqueeze(-2)
        distances = (squared + product * (-squared / (4 * product)).exp()).sqrt()
        polar = self.factor * (charge * charge.unsqueeze(-1) / distances).sum((-1, -2))
        return polar + self.tension * ((radius + PROBE).square() * _sixth_power(radius / born)).sum(-1)

    def _born_radii(self, r: Tensor, itself: Tensor) -> Tensor:
        """With shape (*, n), for distances with shape (*, n, n), of which those from an atom to itself are not read."""
        radius = self.like("radius", r)
        own = (radius - OFFSET).unsqueeze(-1)
        other = self.like("scale", r) * (radius - OFFSET)
        lower, upper = torch.maximum(own, (r - other).abs()), r + other
        near, far, inverse = lower.reciprocal(), upper.reciprocal(), r.reciprocal()
        overlap = near - far + 0.25 * (r - other.square() * inverse) * (far.square() - near.square())
        overlap = overlap + 0.5 * (lower * far).log() * inverse
        overlap = overlap + torch.where(own < other - r, 2 * (1 / own - near), 0.0)
        integral = 0.5 * torch.where(itself | (own >= upper), 0.0, overlap).sum(-1)
        psi = integral * own.squeeze(-1)
        bend = (psi * (ALPHA - psi * (BETA - GAMMA * psi))).tanh()
        return 1 / (1 / own.squeeze(-1) - bend / radius)


def _sixth_power(x: Tensor) -> Tensor:
    """In three products: torch's power of tensors takes ten times as long."""
    cube = x * x * x
    return cube * cube
