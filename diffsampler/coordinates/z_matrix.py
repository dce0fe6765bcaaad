"""Z-matrices: atoms placed one after the other by a bond, an angle and a torsion."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffsampler.errors import InputError

MISSING = -1


class Internal(NamedTuple):
    """Bonds, angles and torsions of the atoms of a Z-matrix from the second, third and fourth row on.

    Attributes:
        bonds: lengths, with shape (*, n - 1).
        angles: in radians, between 0 and pi, with shape (*, n - 2).
        torsions: in radians, with shape (*, n - 3).
    """

    bonds: Tensor
    angles: Tensor
    torsions: Tensor


class ZMatrix(nn.Module):
    """The rows (i, j, k, l): atom i has the distance |ij|, the angle ijk and the torsion ijkl of its row.

    j, k and l are atoms of rows before. The first row is (i, -1, -1, -1), the second (i, j, -1, -1) and the third
    (i, j, k, -1). Torsions have the sign of IUPAC: looking from j to k, positive where l is clockwise of i; 0 is cis. A
    torsion whose atom l is bound to j, as k is, is relative: the angle between l and i around the axis jk.

    Cartesian coordinates come in a frame of their own: the first atom at the origin, the second on the third axis, the
    third in the plane of the first and third axes. Atoms that hang on the same depth of references are placed together.

    References:
        Practical conversion from torsion space to Cartesian space for in silico protein synthesis, Parsons et al.,
            2005, J. Comput. Chem. 26, 1063 (NeRF).

    Arguments:
        rows: with shape (n, 4), n at least 3.

    Attributes:
        rows: as tuples.

    Raises:
        InputError: naming the row that is no such row.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.rows = _checked(rows)
        place = {row[0]: index for index, row in enumerate(self.rows)}
        # Places instead of names: states are in the order of rows until the end.
        placed = [[place[atom] if atom != MISSING else 0 for atom in row] for row in self.rows]
        depth = [0, 0, 0]
        for row in placed[3:]:
            depth.append(1 + max(depth[reference] for reference in row[1:]))
        # By depth: those of the same one know nothing of each other.
        order = sorted(range(len(placed)), key=lambda index: depth[index])
        rank = {index: k for k, index in enumerate(order)}
        ranked = torch.tensor([[rank[place] for place in placed[index]] for index in order])
        self._depths = [sum(d == level for d in depth) for level in range(1, max(depth) + 1)]
        self.third_hangs_on_first = placed[2][1] == 0
        for name, index in {
            "_references": ranked[3:, 1:].T,
            "_order": torch.tensor(order[3:], dtype=torch.long) - 3,
            "_back": torch.tensor([rank[place[atom]] for atom in range(len(placed))]),
            "_rows": torch.tensor(self.rows).clamp(min=0).T,
        }.items():
            self.register_buffer(name, index.contiguous(), persistent=False)

    @property
    def num_atoms(self) -> int:
        return len(self.rows)

    def is_relative(self, index: int) -> bool:
        """Whether the torsion of a row, from the fourth on, is about an axis that another atom of j's turns about."""
        bound = {row[0]: row[1] for row in self.rows}
        _, j, _, last = self.rows[index]
        return bound[last] == j or bound[j] == last

    def to_cartesian(self, internal: Internal) -> Tensor:
        """Positions, with shape (*, n, 3)."""
        bonds, angles, torsions = internal
        placed = self._first_three(bonds, angles)
        if not self._depths:
            return placed[..., self._back, :]
        length, turn, torsion = (
            part[..., self._order + skipped] for part, skipped in ((bonds, 2), (angles, 1), (torsions, 0))
        )
        aside = length * turn.sin()
        local = torch.stack([-length * turn.cos(), aside * torsion.cos(), aside * torsion.sin()], -1)
        steps = zip(local.split(self._depths, -2), self._references.split(self._depths, -1), strict=True)
        for offset, (j, k, last) in steps:
            origin, middle = placed[..., j, :], placed[..., k, :]
            along = nn.functional.normalize(origin - middle, dim=-1)
            normal = nn.functional.normalize(torch.linalg.cross(middle - placed[..., last, :], along), dim=-1)
            frame = torch.stack([along, torch.linalg.cross(normal, along), normal], -2)
            placed = torch.cat([placed, origin + (offset.unsqueeze(-2) @ frame).squeeze(-2)], -2)
        return placed[..., self._back, :]

    def to_internal(self, x: Tensor) -> Internal:
        """Of positions with shape (*, n, 3); torsions in [-pi, pi]."""
        i, j, k, last = (x[..., names, :] for names in self._rows)
        bond = i - j
        to_k, to_i = (k - j)[..., 2:, :], bond[..., 2:, :]
        angle = torch.atan2(torch.linalg.cross(to_i, to_k).norm(dim=-1), (to_i * to_k).sum(-1))
        to_i, axis, beyond = to_i[..., 1:, :], -to_k[..., 1:, :], (k - last)[..., 3:, :]
        first, second = torch.linalg.cross(beyond, axis), torch.linalg.cross(axis, to_i)
        sine = axis.norm(dim=-1) * (beyond * second).sum(-1)
        return Internal(bond[..., 1:, :].norm(dim=-1), angle, torch.atan2(sine, (first * second).sum(-1)))

    def _first_three(self, bonds: Tensor, angles: Tensor) -> Tensor:
        """With shape (*, 3, 3), in the order of rows."""
        zero, first, second, angle = torch.zeros_like(bonds[..., 0]), bonds[..., 0], bonds[..., 1], angles[..., 0]
        along = second * angle.cos()
        third = along if self.third_hangs_on_first else first - along
        flat = [zero, zero, zero, zero, zero, first, second * angle.sin(), zero, third]
        return torch.stack(flat, -1).unflatten(-1, (3, 3))

    def extra_repr(self) -> str:
        return f"num_atoms={self.num_atoms}"


def _checked(rows: Sequence[Sequence[int]]) -> list[tuple[int, int, int, int]]:
    try:
        found = [tuple(int(atom) for atom in row) for row in rows]
    except (TypeError, ValueError):
        found = []
    if len(found) < 3 or any(len(row) != 4 for row in found):
        raise InputError(f"z_matrix must be at least three rows of four atoms (i, j, k, l), got {rows!r:.100}.")
    if sorted(row[0] for row in found) != list(range(len(found))):
        raise InputError(f"z_matrix must place each of the atoms 0 to {len(found) - 1} in one row, as its first atom.")
    before: set[int] = set()
    for index, row in enumerate(found):
        needed = row[1 : 1 + min(index, 3)]
        rest = row[1 + len(needed) :]
        if not set(needed) <= before or len(set(needed)) < len(needed) or set(rest) - {MISSING}:
            raise InputError(
                f"row {index} of z_matrix must name {len(needed)} different atoms of rows before it after its own, and "
                f"-1 for the rest, got {row}."
            )
        before.add(row[0])
    return found
