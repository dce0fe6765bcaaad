"""Forces against central differences of the energy: signs and units are what users get wrong."""

from collections.abc import Callable

import numpy as np

from diffsampler.energies.base import Evaluated
from diffsampler.errors import InputError

NUM_POINTS = 8
NUM_DIRECTIONS = 3
# Of the size of coordinates: whatever the units are, one of them is small beside the energy's own scale and large
# beside rounding.
STEPS = 10.0 ** -np.arange(1, 8)
CONVERGED, AGREES = 1e-3, 1e-2


def check_forces(evaluate: Callable[[np.ndarray, bool], Evaluated], x: np.ndarray) -> bool:
    """Compare forces with differences of the energy along random directions, at points x with shape (n, D).

    Differences that have not settled, since the energy is too steep or too coarsely rounded, say nothing.

    Returns:
        Whether any difference has said something.

    Raises:
        InputError: if forces differ; it names the coordinate where they do most.
    """
    noise = np.random.default_rng(0)
    told = False
    for point in x[:NUM_POINTS]:
        found = evaluate(point[None], True)
        if not (np.isfinite(found.energy).all() and np.isfinite(found.forces).all()):
            continue
        directions = noise.standard_normal((NUM_DIRECTIONS, len(point)))
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        for direction in directions:
            slope = _settled(evaluate, point, direction, -found.forces[0] @ direction)
            if slope is not None and not _agree(slope, -found.forces[0] @ direction):
                _name_the_coordinate(evaluate, point, found.forces[0])
            told = told or slope is not None
    return told


def _name_the_coordinate(evaluate: Callable[[np.ndarray, bool], Evaluated], x: np.ndarray, forces: np.ndarray) -> None:
    slopes = [_settled(evaluate, x, axis, -force) for axis, force in zip(np.eye(len(x)), forces, strict=True)]
    known = np.array([np.nan if slope is None else -slope for slope in slopes])
    wrong = np.array([not np.isnan(a) and not _agree(a, b) for a, b in zip(known, forces, strict=True)])
    if not wrong.any():
        return
    i = int(np.argmax(np.where(wrong, np.abs(known - forces), -1)))
    ratios = (forces / np.where(known == 0, np.nan, known))[~np.isnan(known) & (known != 0)]
    factor = float(np.median(ratios))
    if np.allclose(ratios, -1, rtol=AGREES):
        hint = "All have the wrong sign: forces are minus the gradient."
    elif len(ratios) > 1 and np.allclose(ratios, factor, rtol=AGREES):
        hint = f"All are {factor:.4g} times that: are units of energy or of length mixed?"
    else:
        hint = f"So do {wrong.sum()} of {len(x)} coordinates here. Is a sign, a unit or a term missing?"
    raise InputError(
        f"forces differ from minus the differences of energy: in coordinate {i} they are {forces[i]:.6g}, but -dE/dx "
        f"is {known[i]:.6g}. {hint}"
    )


def _settled(
    evaluate: Callable[[np.ndarray, bool], Evaluated], x: np.ndarray, direction: np.ndarray, expected: float
) -> float | None:
    """dE along a direction by central differences; None where they settle at no step, the nearest if at several."""
    steps = STEPS * (np.abs(x).mean() or 1.0) * len(x) ** 0.5
    moves = steps[:, None] * direction
    energy = evaluate(np.concatenate([x + moves, x - moves]), False).energy.reshape(2, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        slopes = (energy[0] - energy[1]) / (2 * steps)
    pairs = [
        b
        for a, b in zip(slopes, slopes[1:], strict=False)
        if np.isfinite([a, b]).all() and b != 0 and abs(a - b) <= CONVERGED * abs(b)
    ]
    return min(pairs, key=lambda slope: abs(slope - expected), default=None)


def _agree(slope: float, expected: float) -> bool:
    return abs(slope - expected) <= AGREES * max(abs(slope), abs(expected))
