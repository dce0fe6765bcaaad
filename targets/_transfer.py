"""The partition function of a field on a periodic L x T lattice, by a transfer matrix in the space of bonds.

The weight of every bond is expanded, w(p, q) = sum_m g_m(p) g_m(q), and the field of every site integrated out. What is
left are the numbers m of bonds, and one tensor at every site,

    Z = scale^(L T) sum over all m of prod over sites of V[m below, m above, m left, m right].

A row of L bonds that point up is a state of the transfer matrix, whose trace of the power T is taken. Kept are the
states of which the product of the strengths of their bonds is above a cut, which is lowered until log Z stays: from
below, as no eigenvalue of a positive matrix falls when states are added. It has blocks, of charges and of momenta.
"""

import math
from typing import NamedTuple

import numpy as np

__all__ = ["Settled", "Vertex", "settled_log_trace"]

SETTLED_CHANGE, GOOD_CHANGE = 1e-6, 1e-4  # no lower cut is asked for; no other bonds are
NUM_ADAPTED_TO = 1500


class Vertex(NamedTuple):
    """What stands at every site.

    Fields:
        tensor: V with shape (B, B, H, H): bonds below, above, left and right.
        strengths: how much each m of a bond above matters, with shape (B), descending.
        strengths_along: the same of bonds along the row, with shape (H).
        charges: whole numbers with shape (B), of which the sum over a row is conserved.
        modulus: up to multiples of this one.
        log_scale: the log of `scale`.
    """

    tensor: np.ndarray
    strengths: np.ndarray
    strengths_along: np.ndarray
    charges: np.ndarray
    modulus: int
    log_scale: float = 0.0


class Settled(NamedTuple):
    """log Z, and by how much the last lowering of the cut changed it, a sign of the error that is left."""

    log_z: float
    change: float


def settled_log_trace(vertex: Vertex, shape: tuple[int, int]) -> Settled:
    """log Z on a lattice of this shape; where plain bonds leave it open, with bonds adapted to a 4 x 4 lattice."""
    length, power = sorted(shape)
    plain = _lowered(vertex, length, power, range(-6, -40, -2), max_states=11_000)
    if plain.change < GOOD_CHANGE:
        return plain
    vertex = _adapted(vertex)
    if vertex is None:
        return plain
    adapted = _lowered(vertex, length, power, range(-5, -18, -1), max_states=20_000)
    return min(plain, adapted, key=lambda settled: settled.change)


def _lowered(vertex: Vertex, length: int, power: int, log_cuts: range, max_states: int) -> Settled:
    log_zs, sizes = [], None
    for log_cut in log_cuts:
        states = _states(vertex, length, log_cut, max_states)
        width = int((np.log(vertex.strengths_along / vertex.strengths_along[0]) >= log_cut - 2).sum())
        if states is None:
            break
        if sizes == (len(states), width):  # nothing lies between the two cuts
            continue
        sizes = len(states), width
        narrower = vertex._replace(tensor=vertex.tensor[:, :, :width, :width])
        log_zs.append(_log_trace(narrower, states, power) + length * power * vertex.log_scale)
        # From three on: a first cut may leave out something altogether.
        if len(log_zs) > 2 and log_zs[-1] - log_zs[-2] < SETTLED_CHANGE:
            break
    return Settled(log_zs[-1], abs(log_zs[-1] - log_zs[-2])) if len(log_zs) > 2 else Settled(math.nan, math.inf)


def _states(vertex: Vertex, length: int, log_cut: float, max_states: int) -> np.ndarray | None:
    """Rows of bonds of which the product of strengths is above the cut, with shape (S, length); None if too many."""
    logs = np.log(vertex.strengths / vertex.strengths[0])
    states, weights = np.zeros((1, 0), dtype=np.int64), np.zeros(1)
    for _ in range(length):
        longer = weights[:, None] + logs
        row, bond = np.nonzero(longer >= log_cut)
        if len(row) > max_states:
            return None
        states, weights = np.concatenate([states[row], bond[:, None]], 1), longer[row, bond]
    return states


class _Matrix:
    """Rows of the transfer matrix: the trace, over the bonds along the row, of the product of its vertices.

    The products over each half of the row are tabulated; a row of the matrix is one product of two tables.
    """

    def __init__(self, tensor: np.ndarray, states: np.ndarray) -> None:
        half = states.shape[1] // 2
        first, self.first = np.unique(states[:, :half], axis=0, return_inverse=True)
        second, self.second = np.unique(states[:, half:], axis=0, return_inverse=True)
        self.table = _products(tensor, first).reshape(len(first), len(first), -1)
        self.other = _products(tensor, second).swapaxes(-1, -2).reshape(len(second), len(second), -1)

    def row(self, state: int, columns: np.ndarray) -> np.ndarray:
        both = self.table[self.first[state]] @ self.other[self.second[state]].T
        return both[self.first[columns], self.second[columns]]


def _products(tensor: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Of the vertices of all pairs of pieces of rows, with shape (P, P, H, H)."""
    width = tensor.shape[-1]
    product = np.broadcast_to(np.eye(width), (len(parts), len(parts), width, width))
    for bonds in parts.T:
        product = product @ tensor[bonds[:, None], bonds]
    return product


def _log_trace(vertex: Vertex, states: np.ndarray, power: int) -> float:
    """Of the power of the transfer matrix between these states."""
    length = states.shape[1]
    matrix = _Matrix(vertex.tensor, states)
    codes = _codes(states)
    shifted = np.stack([_codes(np.roll(states, -shift, axis=1)) for shift in range(length)], 1)
    charges = vertex.charges[states].sum(1) % vertex.modulus
    log_traces = []
    for charge in np.unique(charges):
        block = np.flatnonzero(charges == charge)
        block = block[codes[block].argsort()]
        # One state stands for all its shifts along the row, of which there are `periods`.
        first = block[shifted[block].min(1) == codes[block]]
        periods = length // (shifted[first] == codes[first, None]).sum(1)
        rows = np.stack([matrix.row(state, block) for state in first])
        columns = np.searchsorted(codes[block], shifted[first])
        for momentum in range(length):
            kept = np.flatnonzero(momentum * periods % length == 0)
            if len(kept) and momentum <= length - momentum:
                phases = np.exp(2j * math.pi * momentum * np.arange(length) / length)
                phases = phases.real.round() if 2 * momentum % length == 0 else phases
                sums = sum(phase * rows[np.ix_(kept, columns[kept, j])] for j, phase in enumerate(phases))
                norms = np.sqrt(periods[kept])
                log_trace = _log_trace_of_power(sums * norms[:, None] * norms / length, power)
                # Momenta k and -k have the same trace.
                log_traces.append(log_trace + (0.0 if 2 * momentum % length == 0 else math.log(2)))
    return float(np.logaddexp.reduce(log_traces))


def _log_trace_of_power(matrix: np.ndarray, power: int) -> float:
    """Of a Hermitian matrix without negative eigenvalues: tr A^p = |A^(p/2)|^2."""
    scale = np.abs(matrix).max()
    half = np.linalg.matrix_power(matrix / scale, power // 2)
    other = half if power % 2 == 0 else half @ (matrix / scale)
    trace = float((half.conj() * other).sum().real)
    return power * math.log(scale) + math.log(trace)


def _codes(states: np.ndarray) -> np.ndarray:
    """One whole number for each state."""
    return states @ (int(states.max()) + 1) ** np.arange(states.shape[1])


def _adapted(vertex: Vertex) -> Vertex | None:
    """The same with bonds turned into those that have probabilities, one by one, in the middle of a 4 x 4 lattice.

    They are the eigenvectors of the density matrix of one bond, in every charge; its eigenvalues decide what matters.
    None where even that lattice has too many states.
    """
    tried = (_states(vertex, 4, log_cut, NUM_ADAPTED_TO) for log_cut in range(-30, -4))
    states = next((states for states in tried if states is not None), None)
    if states is None:
        return None
    matrix = _Matrix(vertex.tensor, states)
    everything = np.arange(len(states))
    full = np.stack([matrix.row(state, everything) for state in everything])
    full /= np.abs(full).max()
    density = np.linalg.matrix_power(full / np.linalg.norm(full, 2), 4)
    num = len(vertex.strengths)
    of_bond = np.zeros((num, num))
    rest = _codes(np.pad(states[:, 1:], ((0, 0), (0, 1))))
    for code in np.unique(rest):
        alike = np.flatnonzero(rest == code)
        of_bond[np.ix_(states[alike, 0], states[alike, 0])] += density[np.ix_(alike, alike)]
    probabilities, turn, charges = np.zeros(num), np.zeros((num, num)), np.zeros(num, dtype=np.int64)
    done = 0
    for charge in np.unique(vertex.charges):
        inside = np.flatnonzero(vertex.charges == charge)
        there = slice(done, done + len(inside))
        probabilities[there], turn[inside, there] = np.linalg.eigh(of_bond[np.ix_(inside, inside)])
        charges[there], done = charge, done + len(inside)
    order = probabilities.argsort()[::-1]
    turn = turn[:, order]
    tensor = np.einsum("mnab,mi,nj->ijab", vertex.tensor, turn, turn, optimize=True)
    strengths = np.sqrt(probabilities[order].clip(1e-32 * probabilities.max()))
    return vertex._replace(tensor=tensor, strengths=strengths, charges=charges[order])
