"""Finished fits in a file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffsampler.calibration.result import OneFit
from diffsampler.errors import InputError
from diffsampler.files import write_atomically
from diffsampler.fingerprint import differences


def read_fits(path: Path, made_of: dict[str, Any]) -> tuple[list[OneFit | str], dict[str, Any] | None]:
    """What `write_fits` wrote: fits, none where there is no file, of those that failed why; and what starts the next.

    Raises:
        InputError: if the file is another thing, or of another calibration.
    """
    if not path.exists():
        return [], None
    try:
        kept = json.loads(path.read_text())
        found = [_fit_from(one) for one in kept["fits"]]
        then, now = ({name: str(value) for name, value in one.items()} for one in (kept["made_of"], made_of))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no calibration: give another file.") from error
    if then != now:
        raise InputError(f"{path} is of another calibration: {differences(then, now)}. Give another file.")
    return found, kept.get("start")


def _fit_from(kept: dict[str, Any] | str) -> OneFit | str:
    if isinstance(kept, str):
        return kept
    return OneFit(**{name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()})


def write_fits(path: Path, made_of: dict[str, Any], finished: list[OneFit | str], start: dict[str, Any] | None) -> None:
    """All finished fits, what tells their calibration apart, and what the next fit begins from."""
    fits = [one if isinstance(one, str) else asdict(one) for one in finished]
    text = json.dumps({"made_of": made_of, "fits": fits, "start": start})
    write_atomically(path, lambda file: file.write(text.encode()))
