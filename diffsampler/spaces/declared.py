"""Spaces as users declare them, in a word."""

from collections.abc import Sequence
from itertools import groupby
from numbers import Integral

from diffsampler.errors import InputError
from diffsampler.spaces.base import Space
from diffsampler.spaces.circle import Circle
from diffsampler.spaces.euclidean import Euclidean
from diffsampler.spaces.particles import Particles
from diffsampler.spaces.product import Product


def angles_among(periodic: bool | Sequence[int], dim: int) -> Space:
    """D coordinates of which all (True), none (False) or the named ones are angles of period 2 pi.

    Raises:
        InputError: if it is neither, or names what is no coordinate.
    """
    if isinstance(periodic, bool):
        return Circle(dim) if periodic else Euclidean(dim)
    try:
        given = list(periodic.tolist() if hasattr(periodic, "tolist") else periodic)
        named = {int(index) for index in given if not isinstance(index, bool)}  # no masks
        known = len(named) == len(given) and named == {index for index in given if 0 <= index < dim}
    except (TypeError, ValueError):
        known = False
    if not known:
        raise InputError(
            f"periodic must be True, False, or the numbers of those coordinates that are angles, 0 to {dim - 1}, each "
            f"once, got {periodic!r}."
        )
    runs = [(is_angle, len(list(run))) for is_angle, run in groupby(range(dim), key=named.__contains__)]
    spaces = [Circle(size) if is_angle else Euclidean(size) for is_angle, size in runs]
    return spaces[0] if len(spaces) == 1 else Product(spaces)


def particles_of(mean_free: int, dim: int) -> Particles:
    """So many particles in D coordinates, one after the other.

    Raises:
        InputError: if D is no multiple of their number.
    """
    if isinstance(mean_free, bool) or not isinstance(mean_free, Integral) or mean_free < 2 or dim % mean_free:
        raise InputError(
            f"mean_free must be the number of particles, at least 2, of which dim = {dim} is a multiple, got "
            f"{mean_free!r}."
        )
    return Particles(int(mean_free), dim // mean_free)
