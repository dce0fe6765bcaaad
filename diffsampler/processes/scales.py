"""Scales that are one number for all coordinates, or one for each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_positive

__all__ = ["check_entries", "to_scales"]


def to_scales(name: str, value: float | Sequence[float]) -> Tensor:
    """Positive finite scales as a float64 tensor, with shape () or (D)."""
    return torch.as_tensor(check_positive(name, value), dtype=torch.float64)


def check_entries(sigma: Tensor, dim: int) -> None:
    """Raise InputError unless sigma has one entry, or one for each of D coordinates."""
    if sigma.ndim and len(sigma) != dim:
        raise InputError(f"sigma must be one number or {dim}, one for each coordinate, got {len(sigma)}.")
