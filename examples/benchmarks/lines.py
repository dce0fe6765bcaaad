"""Finished runs as lines of a JSON file, which grows as they end, and from which a benchmark goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Run = TypeVar("Run", bound=NamedTuple)


def read(file: Path, kind: type[Run]) -> dict[Run, dict[str, Any]]:
    """All runs of a kind that a file has; a line that was cut off is none."""
    found = {}
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            one = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[kind(**{name: one[name] for name in kind._fields})] = one
    return found


def append(file: Path, found: dict[str, Any]) -> None:
    """One more line, on a line of its own even where the last one was cut off."""
    file.parent.mkdir(parents=True, exist_ok=True)
    is_cut_off = file.is_file() and not file.read_text().endswith("\n") and file.stat().st_size > 0
    with file.open("a") as lines:
        lines.write("\n" * is_cut_off + json.dumps(found) + "\n")


def kept(file: Path, run: Run, perform: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    """What a run has found: as the file has it, or performed now and added."""
    found = read(file, type(run)).get(run)
    if found is None:
        found = perform(run)
        append(file, found)
    return found
