"""Files that are whole or not there: what a kill or a full disk interrupts leaves the old one as it was."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from diffsampler.errors import InputError


def check_file(name: str, path: str | os.PathLike[str]) -> None:
    """Raise InputError if an argument of this name is no path that a file can be written to."""
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise InputError(f"{name} must be the path of a file, got {path!r:.80}.")
    if Path(path).is_dir():
        raise InputError(f"{name} must be the path of a file, got the folder {str(path)!r}.")


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write beside the target, on its own file system, and put it in place once it is on the disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """For people too: a line for each number."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
