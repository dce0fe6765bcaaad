"""Which dimensions the terms of a likelihood have, one for each observation."""

from collections.abc import Mapping
from typing import Any


def dims_of_terms(
    shape: tuple[int, ...],
    data: Mapping[str, tuple[int, ...]],
    dims: Mapping[str, list[str]],
    coords: Mapping[str, list[Any]],
) -> list[str] | None:
    """Names of the dimensions of terms: those of data of their shape, or labels that are there for nothing else.

    None where that is not one answer: labels of another dimension would be worse than none.

    Arguments:
        shape: of the terms of one draw.
        data: shapes by name.
        dims: names of dimensions, of parameters and data, by their name.
        coords: labels along a dimension, by its name.
    """
    of_data = {tuple(dims[name]) for name, size in data.items() if size == shape and name in dims}
    if len(of_data) == 1:
        return list(of_data.pop())
    taken = {one for names in dims.values() for one in names}
    free = {name: len(labels) for name, labels in coords.items() if name not in taken}
    along = [[name for name, size in free.items() if size == wanted] for wanted in shape]
    if of_data or any(len(names) != 1 for names in along) or len({*shape}) < len(shape):
        return None
    return [names[0] for names in along]
