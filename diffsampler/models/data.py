"""Data of a model, as its functions see them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffsampler.errors import InputError


class Data(nn.Module):
    """Tensors by name, or a single one, that follow the target to its device.

    Arguments:
        given: a mapping of tensors, arrays or numbers, or one of these.
    """

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.is_single = not isinstance(given, Mapping)
        self.names = ["data"] if self.is_single else list(given)
        values = [given] if self.is_single else given.values()
        for k, (name, value) in enumerate(zip(self.names, values, strict=True)):
            self.register_buffer(f"number_{k}", _as_tensor(name, value), persistent=False)

    @property
    def given(self) -> dict[str, Tensor]:
        """All, by name."""
        return {name: getattr(self, f"number_{k}") for k, name in enumerate(self.names)}

    def for_functions(self) -> Tensor | dict[str, Tensor]:
        """What functions get: a dictionary, or the single tensor."""
        return self.given["data"] if self.is_single else self.given

    def __repr__(self) -> str:
        return ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.given.items())


def as_data(given: Any) -> Data | None:
    """Data as they are kept; None where there are none."""
    return None if given is None else Data(given)


def _as_tensor(name: str, value: Any) -> Tensor:
    try:
        # By NumPy, which makes float64 of plain numbers; a copy, which the caller does not write into.
        value = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"data {name} must be numbers, an array or a tensor, got {type(value).__name__}.") from error
    return value.double() if value.is_floating_point() else value
