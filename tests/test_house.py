"""The rooms of the house: who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import diffsampler

ROOT = Path(diffsampler.__file__).parent
MODULES = {
    ".".join(("diffsampler", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in ROOT.rglob("*.py")
}


def imports_of(file: Path) -> Iterator[str]:
    """The modules that a file names, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


GRAPH = {name: {used for used in imports_of(file) if used in MODULES} for name, file in MODULES.items()}


def room_of(module: str) -> str:
    """The folder of a module; its own name at the top."""
    return ".".join(module.split(".")[:2])


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Names that lead back to the first of them; empty where none do."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for used in sorted(graph[name]):
            if found := walk(used, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_a_cycle_would_be_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert len(GRAPH) > 80 and "diffsampler.errors" in GRAPH["diffsampler.target"]


def test_no_module_leads_back_to_itself() -> None:
    inner = {name: {used for used in uses if not name.startswith(f"{used}.")} for name, uses in GRAPH.items()}
    assert cycle_in(inner) == []


def test_no_room_leads_back_to_itself() -> None:
    rooms: dict[str, set[str]] = {}
    for name, uses in GRAPH.items():
        if name != "diffsampler":  # the surface shows what is inside, some of it late
            rooms.setdefault(room_of(name), set()).update(
                room_of(used) for used in uses if room_of(used) != room_of(name)
            )
    assert cycle_in(rooms) == []


def test_only_training_and_the_command_line_know_lightning() -> None:
    know = {name for name, file in MODULES.items() if any(used.startswith("lightning") for used in imports_of(file))}
    assert know and {room_of(name) for name in know} == {"diffsampler.training", "diffsampler.cli"}


def test_no_import_is_for_type_checkers_alone() -> None:
    assert [name for name, file in MODULES.items() if "TYPE_CHECKING" in file.read_text()] == []


def test_importing_the_library_loads_torch_and_nothing_heavier() -> None:
    heavy = ["lightning", "scipy", "matplotlib", "jsonargparse", "torchdiffeq"]
    code = f"import sys, diffsampler; print([name for name in {heavy} if name in sys.modules])"
    # The targets that ship integrate by scipy, and read data by scikit-learn where they must.
    code += "; import targets; print({'lightning', 'matplotlib', 'sklearn'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\nset()\n"
