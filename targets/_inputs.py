"""What the targets' constructors share: arguments to finite float64 tensors, or one line that says why not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError

__all__ = ["to_tensor"]


def to_tensor(name: str, value: object, ndims: Sequence[int], accepted: str) -> Tensor:
    """`value` as a finite float64 tensor of one of `ndims` dimensions, where it is or where torch makes tensors."""
    where = value.device if isinstance(value, Tensor) else torch.get_default_device()
    try:
        tensor = torch.as_tensor(value, dtype=torch.float64, device=where).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be {accepted}, got {_shorten(value)}.") from error
    if tensor.ndim not in ndims or tensor.numel() == 0:
        raise InputError(f"{name} must be {accepted}, got shape {tuple(tensor.shape)}.")
    if not tensor.isfinite().all():
        raise InputError(f"{name} must be {accepted} with finite entries, got {_shorten(value)}.")
    return tensor


def _shorten(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
