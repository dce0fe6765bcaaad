"""Data of a model, as its functions see them."""

from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffsampler.errors import InputError, in_one_line


class Data(nn.Module):
    """Tensors by name, or a single one, that follow the target to its device.

    Arguments:
        given: a mapping of tensors, arrays or numbers, or one of these.
    """

    def __init__(self, given: Any) -> None:
        super().__init__()
        if hasattr(given, "columns") and hasattr(given, "to_numpy"):
            raise InputError(
                f"data are a {type(given).__name__}, whose columns a tensor cannot name: give a dictionary of them, as "
                "in {name: frame[name] for name in frame.columns}, or one matrix, .to_numpy()."
            )
        self.is_single = not isinstance(given, Mapping)
        self.names = ["data"] if self.is_single else list(given)
        values = [given] if self.is_single else given.values()
        self.called = ["data"] if self.is_single else [f"data {name}" for name in self.names]
        for k, (called, value) in enumerate(zip(self.called, values, strict=True)):
            self.register_buffer(f"number_{k}", _as_tensor(called, value), persistent=False)

    @property
    def given(self) -> dict[str, Tensor]:
        """All, by name."""
        return {name: getattr(self, f"number_{k}") for k, name in enumerate(self.names)}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By name."""
        return {name: tuple(value.shape) for name, value in self.given.items()}

    def for_functions(self) -> Tensor | dict[str, Tensor]:
        """What functions get: a dictionary, or the single tensor."""
        return self.given["data"] if self.is_single else self.given

    @property
    def missing(self) -> str:
        """Which of the numbers are NaN, in words; "" where none are."""
        return self._where(torch.isnan, "NaN")

    @property
    def infinite(self) -> str:
        """Which are infinite, in words; "" where none are."""
        return self._where(torch.isinf, "infinite")

    def with_others_for_infinite(self) -> "Data":
        """The same with the median of all finite numbers in the place of those that are not, 1 where there are none."""
        changed = dict(self.given)
        for name, value in self.given.items():
            if value.isinf().any():
                finite = value[value.isfinite()]
                changed[name] = torch.where(value.isinf(), finite.median() if len(finite) else 1.0, value)
        return Data(changed["data"] if self.is_single else changed)

    def _where(self, is_so: Callable[[Tensor], Tensor], word: str) -> str:
        found = zip(self.called, map(is_so, self.given.values()), strict=True)
        return "; ".join(_places(called, which, word) for called, which in found if which.any())

    def __repr__(self) -> str:
        return ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.given.items())


def as_data(given: Any) -> Data | None:
    """Data as they are kept; None where there are none."""
    return None if given is None else Data(given)


def _places(called: str, which: Tensor, word: str) -> str:
    """Where a tensor is NaN or infinite, in words."""
    if not which.ndim:
        return f"{called} is {word}"
    first = ", ".join(map(str, which.nonzero()[0].tolist()))
    return f"{called} is {word} at [{first}] ({int(which.sum())} of {which.numel()} numbers)"


def _as_tensor(called: str, value: Any) -> Tensor:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(
            f"{called} is a masked array, with {int(value.mask.sum())} of {value.size} numbers missing, and as a "
            "tensor it would have them back: give those that are there, as in .compressed()."
        )
    try:
        # By NumPy, which makes float64 of plain numbers; a copy, which the caller does not write into.
        value = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{called} must be numbers, an array or a tensor, got {_first_of_others(value)}.") from error
    return value.double() if value.is_floating_point() else value


def _first_of_others(value: Any) -> str:
    """What is no number, in words: what was given, or the first such entry of it."""
    given = type(value).__name__
    try:
        entries = np.asarray(value, dtype=object)
    except ValueError:
        return f"{given} of rows of different lengths"
    for place in np.ndindex(entries.shape) if entries.ndim else ():
        entry = entries[place]
        if isinstance(entry, list | tuple | np.ndarray):
            return f"{given} of rows of different lengths"
        if not isinstance(entry, Number):
            return f"{given} with {in_one_line(entry)[:80]} at [{', '.join(map(str, place))}]"
    return given
