"""Bonds, angles and torsions of a molecule."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.coordinates.base import Coordinates
from diffsampler.coordinates.intervals import Between, Positive
from diffsampler.coordinates.z_matrix import Internal, ZMatrix
from diffsampler.errors import InputError, check_positive
from diffsampler.spaces import Circle, Euclidean, Particles, Product, Space
from diffsampler.target import Target, space_of

# Three atoms nearer to a line than this have no torsion that a float could tell.
SMALLEST_ANGLE = 1e-3


class InternalCoordinates(Coordinates):
    """The positions x of n atoms in R^3 from bonds, angles and torsions, without the six coordinates of a rigid body.

    z holds, in this order, a real for every bond b, in the order of rows; one for every angle theta; one for every
    torsion that stays near one value; and an angle in [-pi, pi) for every other torsion. Reals are in units of a scale
    around the reference: 0 is the reference itself. They are mapped by smooth functions onto (0, inf) for bonds,
    (0, pi) for angles, and one turn around the reference for torsions: nowhere is the density zero for a coordinate
    that makes no sense, so that there is a score everywhere, and at the few scales that matter the maps are nearly
    linear.

    Relative torsions (`ZMatrix`) stay near one value by default, and torsions about an axis of their own are free.
    `z_matrix_from_bonds` makes a Z-matrix of few free ones. The scales of one reference are those of a force field at
    300 K: in alanine dipeptide (ff96 with OBC, 60 ps) bonds have standard deviations of 0.018 to 0.029 of their length,
    angles of 0.05 to 0.08 and relative torsions of 0.08 to 0.20.

    **Chirality.** Of atoms in `chiral` the relative torsion keeps the sign that it has in the reference: it is mapped
    onto (0, pi) or (-pi, 0). The mirror image of that centre has no z, and is no part of log Z; `inverse` gives NaN
    there. `chiral_atoms` finds them.

    **log Z.** log |det| is that of d mu = prod_i b_i^2 sin(theta_i) db_i dtheta_i dphi_i, over all bonds, angles and
    torsions of the Z-matrix: the six coordinates of place and orientation are fixed, not integrated. Where the target
    declares `Particles`, log Z is that of configurations of mean 0, as in `MeanFreeCoordinates`. That is
    log(8 pi^2) - 3/2 log n more: rotations integrate to 8 pi^2, and n^(3/2) is the volume in coordinates relative to
    one atom of a unit of the mean-free space. The target must not change when all atoms are moved or turned alike. x
    has its mean at 0, and one orientation.

    Three atoms of a row in a line, as in alkynes, have no torsion: a Z-matrix must refer to others.

    Arguments:
        target: of x, the positions (x_0, y_0, z_0, x_1, ...) of n atoms; its dimension and space count.
        z_matrix: rows (i, j, k, l), as in `ZMatrix`.
        reference: a configuration with shape (3 n), or several with shape (m, 3 n), whose means are then the origin of
            reals, and whose standard deviations are their scales.
        chiral: atoms whose relative torsion keeps its sign.
        free: atoms whose torsion is an angle in z; by default all whose torsion is not relative.
        bond_scale: of one reference: the scale of a bond, as a share of its length; positive.
        angle_scale: of one reference: the scale of angles, in radians; positive.
        torsion_scale: of one reference: the scale of torsions that are not free, in radians; positive.

    Attributes:
        z_matrix: the `ZMatrix`.
        log_orbit: what log Z has more than that of mu: 0, or log(8 pi^2) - 3/2 log n.

    Raises:
        InputError: if they do not belong together.
    """

    def __init__(
        self,
        target: Target,
        z_matrix: Sequence[Sequence[int]],
        reference: Tensor | Sequence[float] | Sequence[Sequence[float]],
        chiral: Sequence[int] = (),
        free: Sequence[int] | None = None,
        bond_scale: float = 0.03,
        angle_scale: float = 0.1,
        torsion_scale: float = 0.2,
    ) -> None:
        for name, scale in (("bond_scale", bond_scale), ("angle_scale", angle_scale), ("torsion_scale", torsion_scale)):
            check_positive(name, scale)
        matrix = ZMatrix(z_matrix)
        n = matrix.num_atoms
        super().__init__(3 * n - 6, 3 * n)
        if target.dim != 3 * n:
            raise InputError(
                f"z_matrix is of {n} atoms, in 3 x {n} = {3 * n} coordinates, but {type(target).__name__} has "
                f"{target.dim}."
            )
        self.z_matrix = matrix
        self.chiral, self.free = _torsions(matrix, chiral, free)
        of_rows = {row[0]: index for index, row in enumerate(matrix.rows[3:])}
        turning = sorted(of_rows[atom] for atom in self.free)
        stiff = [index for index in range(n - 3) if index not in turning]
        self._sizes = [n - 1, n - 2, len(stiff), len(turning)]
        back = torch.tensor([*stiff, *turning], dtype=torch.long).argsort()
        self.register_buffer("_back", back, persistent=False)
        self.register_buffer("_stiff", torch.tensor(stiff, dtype=torch.long), persistent=False)
        self.register_buffer("_turning", torch.tensor(turning, dtype=torch.long), persistent=False)

        found = matrix.to_internal(_configurations(reference, n))
        _check_lines(matrix, found)
        bonds, angles, torsions = found.bonds, found.angles, found.torsions[:, stiff]
        loc = bonds.mean(0)
        self.bonds = Positive(loc, _scales("bond", bonds - loc, bond_scale * loc))
        loc, zero = angles.mean(0), torch.zeros_like(angles[0])
        scale = _scales("angle", angles - loc, zero + angle_scale)
        self.angles = Between(loc, scale, zero, zero + math.pi)
        # Relative to the first configuration, from which others are less than half a turn away.
        apart = torch.remainder(torsions - torsions[0] + math.pi, 2 * math.pi) - math.pi
        loc = torsions[0] + apart.mean(0)
        low, high = loc - math.pi, loc + math.pi
        for column, index in enumerate(stiff):
            if matrix.rows[index + 3][0] in self.chiral:
                sign = _sign(torsions[:, column], matrix.rows[index + 3][0])
                loc[column] = torsions[:, column].mean()
                low[column], high[column] = min(0.0, sign * math.pi), max(0.0, sign * math.pi)
        scale = _scales("torsion", torsions[0] + apart - loc, torch.full_like(loc, torsion_scale))
        self.torsions = Between(loc, scale, low, high)
        self.log_orbit = math.log(8 * math.pi**2) - 1.5 * math.log(n) if _is_mean_free(target, n) else 0.0

    @property
    def space(self) -> Space:
        num_reals, num_angles = sum(self._sizes[:3]), self._sizes[3]
        return Product([Euclidean(num_reals), Circle(num_angles)]) if num_angles else Euclidean(num_reals)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        internal, log_slopes = self.to_internal(z)
        x = self.z_matrix.to_cartesian(internal)
        sines = internal.angles.sin().clamp(min=torch.finfo(z.dtype).tiny)
        log_det = torch.cat([2 * internal.bonds.log(), sines.log(), log_slopes], -1).double().sum(-1)
        return (x - x.mean(-2, keepdim=True)).flatten(-2), log_det + self.log_orbit

    def inverse(self, x: Tensor) -> Tensor:
        bonds, angles, torsions = self.z_matrix.to_internal(x.unflatten(-1, (-1, 3)))
        stiff = self.torsions.middle_turn(torsions[..., self._stiff])
        turning = torch.remainder(torsions[..., self._turning] + math.pi, 2 * math.pi) - math.pi
        return torch.cat(
            [self.bonds.inverse(bonds), self.angles.inverse(angles), self.torsions.inverse(stiff), turning], -1
        )

    def to_internal(self, z: Tensor) -> tuple[Internal, Tensor]:
        """Bonds, angles and torsions in the order of rows, and the logs of the slopes of all reals."""
        bonds, angles, stiff, turning = z.split(self._sizes, -1)
        found = self.bonds(bonds), self.angles(angles), self.torsions(stiff)
        (bonds, angles, stiff), log_slopes = zip(*found, strict=True)
        torsions = torch.cat([stiff, turning], -1)[..., self._back]
        return Internal(bonds, angles, torsions), torch.cat(log_slopes, -1)


def _torsions(matrix: ZMatrix, chiral: Sequence[int], free: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """The chiral atoms and the free ones."""
    relative = {row[0]: matrix.is_relative(index) for index, row in enumerate(matrix.rows) if index > 2}
    chiral = list(chiral)
    free = [atom for atom, is_relative in relative.items() if not is_relative] if free is None else list(free)
    if not {*chiral, *free} <= set(relative):
        raise InputError(f"chiral and free must be atoms that have a torsion, {list(relative)}, got {chiral}, {free}.")
    if not all(relative[atom] for atom in chiral) or set(chiral) & set(free):
        raise InputError(
            f"chiral must be atoms whose torsion is relative and not free: {[a for a in relative if relative[a]]} have "
            f"one relative to another atom of the same j, got {chiral}."
        )
    return chiral, free


def _configurations(reference: Tensor | Sequence, n: int) -> Tensor:
    """With shape (m, n, 3)."""
    x = torch.as_tensor(reference, dtype=torch.float64, device="cpu")
    if x.shape[-1:] != (3 * n,) or x.ndim > 2 or not x.isfinite().all():
        raise InputError(
            f"reference must be finite positions with shape ({3 * n}), or (m, {3 * n}), got shape {tuple(x.shape)}."
        )
    return x.reshape(-1, n, 3)


def _check_lines(matrix: ZMatrix, found: Internal) -> None:
    edge = torch.minimum(found.angles, math.pi - found.angles).amin(0)
    if not (found.bonds > 0).all() or edge.min() < SMALLEST_ANGLE:
        row = matrix.rows[int(edge.argmin()) + 2]
        raise InputError(
            f"reference has atoms {row[:3]} in a line, or two atoms in one place: a row of z_matrix must name others."
        )


def _scales(name: str, apart: Tensor, usual: Tensor) -> Tensor:
    """Standard deviations of several configurations, with shape (m, D) around their mean; of one the usual ones."""
    if len(apart) == 1:
        return usual
    scales = apart.square().mean(0).sqrt()
    if (scales < 1e-3 * usual).any():
        raise InputError(f"reference has a {name} that is the same in all configurations: give one of them alone.")
    return scales


def _sign(torsions: Tensor, atom: int) -> float:
    signs = torsions.sign().unique().tolist()
    if len(signs) > 1 or signs == [0.0]:
        raise InputError(f"reference has both hands at the chiral torsion of atom {atom}, or lies in a plane there.")
    return signs[0]


def _is_mean_free(target: Target, n: int) -> bool:
    space = space_of(target)
    if isinstance(space, Particles) and (space.num_particles, space.dimension) != (n, 3):
        raise InputError(f"z_matrix is of {n} atoms in R^3, but {type(target).__name__} lives on {space!r}.")
    return isinstance(space, Particles)
