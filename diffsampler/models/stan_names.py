"""Names of numbers in Stan, such as L.1.2, as names and shapes of parameters."""

from collections.abc import Sequence

import numpy as np


class StanNames:
    """Which numbers are whose.

    Arguments:
        names: of all numbers in Stan's order, counted from 1, the first index fastest.

    Attributes:
        num_numbers: how many there are.
        shapes: by parameter.

    Example:
        >>> StanNames(["mu", "L.1.1", "L.2.1", "L.1.2", "L.2.2"]).shapes
        {'mu': (), 'L': (2, 2)}
    """

    def __init__(self, names: Sequence[str]) -> None:
        names = [name for name in names if name]  # a model without any says ""
        self.num_numbers = len(names)
        self._numbers: dict[str, list[int]] = {}
        self._places: dict[str, list[tuple[int, ...]]] = {}
        for k, name in enumerate(names):
            parts = name.split(".")
            # Of tuples and complex numbers, z.1.real and pair:1.2, what is no number belongs to the name.
            index = tuple(int(part) - 1 for part in parts[1:] if part.isdigit())
            whole = ".".join([parts[0], *(part for part in parts[1:] if not part.isdigit())])
            self._numbers.setdefault(whole, []).append(k)
            self._places.setdefault(whole, []).append(index)
        self.shapes = {
            name: tuple(1 + max(along) for along in zip(*places, strict=True)) for name, places in self._places.items()
        }

    def split(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Values by name, each with shape (n, *shape), of numbers with shape (n, num_numbers)."""
        found = {}
        for name, shape in self.shapes.items():
            value = np.full((len(numbers), *shape), np.nan)
            for k, place in zip(self._numbers[name], self._places[name], strict=True):
                value[(slice(None), *place)] = numbers[:, k]
            found[name] = value
        return found
