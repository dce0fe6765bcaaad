"""Reading checkpoints: what is wrong with a file, in one line."""

import os
from pathlib import Path
from typing import Any

import torch

from diffsampler.errors import InputError

KINDS = {
    "state_dict": dict,
    "generators": list,
    "global_step": int,
    "history": list,
    "behaviour": dict,
    "parts": dict,
    "num_target_evaluations": int,
    "num_invalid_evaluations": int,
}
# What a sampler alone has of these.
WITHOUT_TRAINING = {"generators": [], "global_step": 0, "history": [], "behaviour": {}}


def read_checkpoint(path: str | os.PathLike[str], called: str = "ckpt_path") -> dict[str, Any]:
    """The content of a checkpoint that training wrote, on the CPU.

    Arguments:
        path: the file.
        called: the argument that it is, for messages.

    Raises:
        InputError: if there is no such file, or it is damaged, or of another program.
    """
    if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
        raise InputError(f"{called} must be a checkpoint file, got {str(path)!r}, which is none.")
    try:
        # Mapped, not read: most callers only look whether it is one, and a replay buffer may be large.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what a reader of pickles meets in a file that is none has no common type
        raise InputError(f"{called} {str(path)!r} cannot be read: it is damaged or no checkpoint.") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "generators", "global_step"} <= checkpoint.keys():
        raise InputError(f"{called} {str(path)!r} was not written by diffsampler fit.")
    if "parts" not in checkpoint:
        raise InputError(
            f"{called} {str(path)!r} was written by an earlier version of diffsampler, whose parts had other names: "
            "train again, or use that version."
        )
    for key, kind in KINDS.items():
        if not isinstance(checkpoint.get(key), kind):
            raise InputError(f"{called} {str(path)!r} is damaged: {key} is no {kind.__name__}.")
    return checkpoint


def read_training(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The same, of a training that commands can go on with.

    Raises:
        InputError: if it is of a sampler alone, too.
    """
    checkpoint = read_checkpoint(path)
    if not checkpoint["generators"]:
        raise InputError(
            f"ckpt_path {str(path)!r} is of a sampler alone, by Sampler.save, and not of a training: in Python, "
            "Sampler.load(path, target) takes it, and fit(sampler) trains on."
        )
    return checkpoint


def was_trained(checkpoint: dict[str, Any]) -> bool:
    """Whether any step has been made on its weights; files of before say so by their own steps alone."""
    return bool(checkpoint.get("was_trained", checkpoint["global_step"] > 0))


def first_mismatch(error: RuntimeError) -> str:
    """The first difference that torch reports when a state_dict does not fit."""
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
    text = lines[0] if lines else str(error)
    return text if len(text) <= 200 else f"{text[:200]}..."
