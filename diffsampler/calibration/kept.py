"""Finished fits in a file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffsampler.calibration.result import OneFit
from diffsampler.errors import InputError
from diffsampler.files import write_atomically


def read_fits(path: Path, made_of: dict[str, Any]) -> list[OneFit | str]:
    """What `write_fits` wrote, none where there is no file; of those that failed, why.

    Raises:
        InputError: if the file is another thing, or of another calibration.
    """
    if not path.exists():
        return []
    try:
        kept = json.loads(path.read_text())
        found = [_fit_from(one) for one in kept["fits"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no calibration: give another file.") from error
    if kept["made_of"] != made_of:
        raise InputError(f"{path} is of another calibration, with {kept['made_of']}: give another file.")
    return found


def _fit_from(kept: dict[str, Any] | str) -> OneFit | str:
    if isinstance(kept, str):
        return kept
    return OneFit(**{name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()})


def write_fits(path: Path, made_of: dict[str, Any], finished: list[OneFit | str]) -> None:
    """All finished fits, and what tells their calibration apart."""
    fits = [one if isinstance(one, str) else asdict(one) for one in finished]
    text = json.dumps({"made_of": made_of, "fits": fits})
    write_atomically(path, lambda file: file.write(text.encode()))
