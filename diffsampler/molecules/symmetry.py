"""Where positions of particles live, by what leaves their energy as it is."""

from collections.abc import Callable

import numpy as np

from diffsampler.spaces import Particles, Space

# Of the closest pair's distance: bonds are stretched by less than kT, about.
JIGGLE = 0.01
# Relative to what jiggling changes, and to the energy itself, which may be of single precision.
OF_CHANGES, OF_ENERGY = 1e-2, 3e-7


def space_of_particles(energy: Callable[[np.ndarray], np.ndarray], positions: np.ndarray) -> Space | None:
    """`Particles` of an energy that stays the same when all move alike, else None: all of R^(3 n).

    Whether it stays the same under rotations and reflections, and when particles are exchanged, is asked too.

    Arguments:
        energy: maps positions with shape (k, 3 n) to energies with shape (k).
        positions: one configuration of a usual energy, with shape (n, 3).
    """
    noise = np.random.default_rng(0)
    n = len(positions)
    pairs = np.linalg.norm(positions[:, None] - positions, axis=-1) + np.diag([np.inf] * n)
    near = positions + JIGGLE * pairs.min() * noise.standard_normal((4, n, 3))
    rotation = np.linalg.qr(noise.standard_normal((3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    images = {
        "as they are": near,
        "moved": near + pairs[np.isfinite(pairs)].max() * noise.standard_normal(3),
        "rotated": near @ rotation,
        "reflected": near @ -rotation,
        "exchanged": np.roll(near, 1, axis=1),
        "shuffled": near[:, noise.permutation(n)],
    }
    found = energy(np.concatenate(list(images.values())).reshape(-1, 3 * n)).reshape(len(images), -1)
    margin = OF_CHANGES * np.ptp(found[0]) + OF_ENERGY * np.abs(found[0]).max()
    same = dict(zip(images, (np.abs(found - found[0]) <= margin).all(-1), strict=True))
    if not same["moved"]:
        return None
    identical = bool(same["exchanged"] and same["shuffled"])
    return Particles(n, 3, identical=identical, isotropic=bool(same["rotated"] and same["reflected"]))
