"""Data of a model, as its functions see them."""

from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffsampler.errors import InputError, in_one_line

NATIVE = {"i": np.int64, "u": np.uint64, "f": np.float64, "c": np.complex128}  # by the kind of a dtype


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
        # Always a copy, which the caller does not write into.
        tensor = value.detach().clone() if isinstance(value, Tensor) else torch.from_numpy(_native(np.asarray(value)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{called} must be numbers, an array or a tensor, got {_first_of_others(value)}.") from error
    if tensor.dtype == torch.uint64 and (tensor.view(torch.int64) < 0).any():
        raise InputError(f"{called} has whole numbers above 2^63 - 1: give them as float64, which rounds them.")
    # Whole numbers in one dtype: in others they overflow where they are computed with, or torch does not compute.
    is_whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    dtype = torch.int64 if is_whole else torch.float64 if tensor.is_floating_point() else tensor.dtype
    return tensor.to(dtype).contiguous()


def _native(array: np.ndarray) -> np.ndarray:
    """A copy in memory as torch takes it: of one dtype for each kind, in its order of bytes, one after the other."""
    # Not astype, which leaves NumPy's second integers of 64 bits as they are: torch does not know the unsigned ones.
    native = np.empty(array.shape, NATIVE.get(array.dtype.kind, array.dtype))
    native[...] = array
    return native


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
