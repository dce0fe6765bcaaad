"""Alanine dipeptide in implicit solvent: the smallest molecule with a Ramachandran map."""

from collections.abc import Callable
from functools import partial
from importlib import resources

import torch
from torch import Tensor

from diffsampler.coordinates import InternalCoordinates, ZMatrix, chiral_atoms, z_matrix_from_bonds
from diffsampler.molecules import dihedral
from diffsampler.target import Target
from targets.force_field_target import ForceFieldTarget

__all__ = ["AlanineDipeptide"]

PDB = resources.files("targets").joinpath("data", "alanine_dipeptide.pdb")


class AlanineDipeptide(ForceFieldTarget):
    """exp(-E(x) / kT) of ACE-ALA-NME, 22 atoms, x in nm, in Amber ff96 with OBC solvent, without constraints.

    OpenMM's amber96.xml and amber96_obc.xml, no cutoff. The literature's AlanineDipeptideImplicit of openmmtools is
    named alike, but reads a parameter file of its own, with which this was not compared. The energy does not know left
    from right: configurations of D-alanine weigh as much as those of L-alanine. In the coordinates that it declares,
    log Z is that of L-alanine. `chirality` says which ones are L.

    Needs OpenMM to read files: `pip install diffsampler[molecules]`.

    Kollman et al., The development/application of a "minimalist" organic/biochemical molecular mechanic force field,
    1996 (ff96); Onufriev, Bashford & Case, 2004, https://doi.org/10.1002/prot.20033 (OBC).

    Arguments:
        temperature: in K.
    """

    def __init__(self, temperature: float = 300.0) -> None:
        with resources.as_file(PDB) as path:
            super().__init__(str(path), ["amber96.xml", "amber96_obc.xml"], temperature)
        atoms = ("ACE1.C", "ALA2.N", "ALA2.CA", "ALA2.C", "NME3.N", "ALA2.CB")
        self._atoms = [self.molecule.atom(name) for name in atoms]
        self.coordinates = self._coordinates()
        self.plot_coordinates = (3 * self._atoms[2], 3 * self._atoms[2] + 1)

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The angles phi and psi in radians, in [-pi, pi], and `chirality`: 1 for L, 0 for D."""
        carbon, nitrogen, alpha, carbonyl, next_nitrogen, _ = self._atoms
        return {
            "phi": lambda x: self._dihedral(x, carbon, nitrogen, alpha, carbonyl),
            "psi": lambda x: self._dihedral(x, nitrogen, alpha, carbonyl, next_nitrogen),
            "chirality": self._chirality,
        }

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        return {"fraction_of_L": float(self._chirality(x).mean())}

    def _coordinates(self) -> Callable[[Target], InternalCoordinates]:
        """Of L-alanine: bonds, angles and torsions, of which all but those of the two amides turn freely."""
        molecule = self.molecule
        z_matrix = z_matrix_from_bonds(len(molecule.elements), molecule.bonds)
        amides = [{molecule.atom(a), molecule.atom(b)} for a, b in (("ACE1.C", "ALA2.N"), ("ALA2.C", "NME3.N"))]
        is_relative = ZMatrix(z_matrix).is_relative
        free = [r[0] for k, r in enumerate(z_matrix) if k > 2 and not is_relative(k) and {*r[1:3]} not in amides]
        chiral = chiral_atoms(z_matrix, molecule.bonds, molecule.elements)
        reference = torch.as_tensor(molecule.positions, dtype=torch.float64).flatten()
        return partial(InternalCoordinates, z_matrix=z_matrix, reference=reference, chiral=chiral, free=free)

    def _dihedral(self, x: Tensor, *atoms: int) -> Tensor:
        return dihedral(x.unflatten(-1, (-1, 3)), *atoms)

    def _chirality(self, x: Tensor) -> Tensor:
        _, nitrogen, alpha, carbonyl, _, beta = self._atoms
        positions = x.unflatten(-1, (-1, 3))
        a, b, c = (positions[..., atom, :] - positions[..., alpha, :] for atom in (nitrogen, carbonyl, beta))
        return (torch.linalg.cross(b, c) * a).sum(-1).gt(0).to(x.dtype)
