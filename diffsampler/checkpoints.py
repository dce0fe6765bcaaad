"""Reading checkpoints: what is wrong with a file, in one line."""

import os
from pathlib import Path
from typing import Any

import torch

from diffsampler.errors import InputError

__all__ = ["first_mismatch", "read_checkpoint"]


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint that training wrote, on the CPU.

    Raises:
        InputError: if there is no such file, or it is damaged, or of another program.
    """
    if not Path(path).is_file():
        raise InputError(f"ckpt_path must be a checkpoint file, got {str(path)!r}, which is none.")
    try:
        # Mapped, not read: most callers only look whether it is one, and a replay buffer may be large.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what a reader of pickles meets in a file that is none has no common type
        raise InputError(f"ckpt_path {str(path)!r} cannot be read: it is damaged or no checkpoint.") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "generators", "global_step"} <= checkpoint.keys():
        raise InputError(f"ckpt_path {str(path)!r} was not written by diffsampler fit.")
    return checkpoint


def first_mismatch(error: RuntimeError) -> str:
    """The first difference that torch reports when a state_dict does not fit."""
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
    text = lines[0] if lines else str(error)
    return text if len(text) <= 200 else f"{text[:200]}..."
