"""From the bonds of a molecule to a Z-matrix of it."""

from collections.abc import Sequence
from typing import Any

from diffsampler.coordinates.z_matrix import MISSING
from diffsampler.errors import InputError


def z_matrix_from_bonds(
    num_atoms: int, bonds: Sequence[tuple[int, int]], root: int | None = None
) -> list[tuple[int, int, int, int]]:
    """Rows (i, j, k, l) as in `ZMatrix`, along a tree of the bonds.

    The first atom that is placed on j gets a torsion about the axis jk of its own; all others on j are turned relative
    to it, as improper torsions. What turns together then has one angle that is free, and the rest are stiff and nearly
    independent of it. Heavier branches come first, which makes them a chain's: on a peptide phi and psi, where the root
    is a C-alpha. A ring is cut at one bond, the length of which is a function of all of its coordinates.

    Arguments:
        num_atoms: n, at least 3.
        bonds: pairs of atoms, that make one molecule.
        root: the first row; by default the atom from which the furthest is nearest, of those that have the most bonds.

    Raises:
        InputError: if a bond is none of two of the atoms, or not all atoms hang together.
    """
    near = _neighbours(num_atoms, bonds)
    if root is None:
        root = min(near, key=lambda atom: (max(_distances(near, atom)), -len(near[atom])))
    elif root not in near:
        raise InputError(f"root must be one of the atoms 0 to {num_atoms - 1}, got {root!r}.")
    children = _tree(near, root)
    parent = {child: atom for atom, its in children.items() for child in its}
    order = _breadth_first(children, root)
    rows = [(root, MISSING, MISSING, MISSING), (order[1], root, MISSING, MISSING)]
    for i in order[2:]:
        j = parent[i]
        k = order[1] if j == root else parent[j]
        if len(rows) == 2:
            rows.append((i, j, k, MISSING))
            continue
        siblings = [atom for atom in children[j] if atom != k]
        beyond = [parent[k]] if k != root else [atom for atom in children[root] if atom != j]
        rows.append((i, j, k, beyond[0] if siblings[0] == i else siblings[0]))
    return rows


def chiral_atoms(
    z_matrix: Sequence[Sequence[int]], bonds: Sequence[tuple[int, int]], elements: Sequence[str]
) -> list[int]:
    """The atoms of a Z-matrix whose relative torsion has another sign in the mirror image of a chiral centre.

    Centres are atoms with four different neighbours, as far as refined colours of the bonds tell (Morgan's algorithm):
    in alanine its C-alpha. One atom for each centre, to give to `InternalCoordinates` as `chiral`.

    References:
        The generation of a unique machine description for chemical structures, Morgan, 1965, J. Chem. Doc. 5, 107.

    Arguments:
        z_matrix: rows (i, j, k, l), such as those of `z_matrix_from_bonds`.
        bonds: pairs of atoms.
        elements: of every atom, such as "C": any names that tell them apart.
    """
    near = _neighbours(len(z_matrix), bonds)
    if len(elements) != len(near):
        raise InputError(f"elements must be those of {len(near)} atoms, got {len(elements)}.")
    colours = _as_numbers(elements)
    for _ in near:
        colours = _as_numbers([(colours[atom], sorted(colours[other] for other in its)) for atom, its in near.items()])
    centres = {atom for atom, its in near.items() if len(its) == 4 == len({colours[other] for other in its})}
    found: dict[int, int] = {}
    for i, j, k, last in z_matrix[3:]:
        if j in centres and {i, k, last} <= near[j]:
            found.setdefault(j, i)
    return list(found.values())


def _neighbours(num_atoms: int, bonds: Sequence[tuple[int, int]]) -> dict[int, set[int]]:
    near: dict[int, set[int]] = {atom: set() for atom in range(num_atoms)}
    for bond in bonds:
        if len(bond) != 2 or bond[0] == bond[1] or not set(bond) <= set(near):
            raise InputError(f"bonds must be pairs of different atoms, 0 to {num_atoms - 1}, got {bond!r}.")
        near[bond[0]].add(bond[1])
        near[bond[1]].add(bond[0])
    apart = [atom for atom, distance in enumerate(_distances(near, 0)) if distance == num_atoms]
    if num_atoms < 3 or apart:
        raise InputError(f"bonds must make one molecule of at least 3 atoms, but from atom 0 none lead to {apart}.")
    return near


def _distances(near: dict[int, set[int]], start: int) -> list[int]:
    """In bonds, of every atom; their number where no bond leads."""
    distance, front = {start: 0}, [start]
    for atom in front:
        new = [other for other in near[atom] if other not in distance]
        distance.update(dict.fromkeys(new, distance[atom] + 1))
        front.extend(new)
    return [distance.get(atom, len(near)) for atom in near]


def _tree(near: dict[int, set[int]], root: int) -> dict[int, list[int]]:
    """The children of every atom, those with the most atoms behind them first."""
    children: dict[int, list[int]] = {}
    seen, order = {root}, [root]
    for atom in order:
        children[atom] = sorted(near[atom] - seen)
        seen.update(children[atom])
        order.extend(children[atom])
    size: dict[int, int] = {}
    for atom in reversed(order):
        size[atom] = 1 + sum(size[child] for child in children[atom])
    return {atom: sorted(its, key=lambda child: -size[child]) for atom, its in children.items()}


def _breadth_first(children: dict[int, list[int]], root: int) -> list[int]:
    order = [root]
    for atom in order:
        order.extend(children[atom])
    return order


def _as_numbers(names: Sequence[Any]) -> list[int]:
    known = sorted({repr(name) for name in names})
    return [known.index(repr(name)) for name in names]
