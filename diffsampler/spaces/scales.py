"""Scales that are one number for all coordinates, or one for each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_positive


def to_scales(name: str, value: float | Sequence[float], dim: int) -> Tensor:
    """Positive finite scales as a float64 tensor, with shape () or (D)."""
    scales = torch.as_tensor(check_positive(name, value), dtype=torch.float64)
    if scales.ndim and scales.shape != (dim,):
        raise InputError(f"{name} must be one number or {dim}, one for each coordinate, got {len(scales)}.")
    return scales
