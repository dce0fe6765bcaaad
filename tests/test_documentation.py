"""README and the pages of docs/: their code runs and prints what they show, and what they name exists."""

import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import diffsampler
import targets
from diffsampler.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def fences(text: str) -> list[tuple[str, str]]:
    """The language and the content of every block."""
    return FENCE.findall(text)


@pytest.mark.parametrize("name", TEXT)
def test_rows_of_a_table_have_as_many_cells(name: str) -> None:
    prose = FENCE.sub("", TEXT[name])
    for block in re.split(r"\n\s*\n", prose):
        lines = block.strip().split("\n")
        if any(re.fullmatch(r"\|[\s:|-]+\|", line) for line in lines):
            cells = [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) for line in lines]
            assert len(set(cells)) == 1 and all(line[0] == line[-1] == "|" for line in lines), lines[
                cells.index(max(cells))
            ]


def agree(shown: str, printed: str) -> bool:
    """Whether two texts are the same, and their numbers to one unit of the last digit shown."""
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        unit = 10.0 ** -len(a.partition(".")[2])
        if abs(float(a.replace(",", "")) - float(b.replace(",", ""))) > 1.001 * unit:
            return False
    return True


def test_what_agrees() -> None:
    assert agree("log Z = 0.63, 10 draws", "log Z = 0.64, 10 draws")
    assert not agree("log Z = 0.63", "log Z = 0.65") and not agree("log Z = 0.63", "log z = 0.63")
    assert not agree("-0.03", "0.03") and not agree("1 2", "1")


# The first page searches as README does, three times as long.
MARKS = {
    "docs/first_log_z.md": [pytest.mark.slow],
    "docs/particles.md": [pytest.mark.slow],
    "docs/posteriors.md": [pytest.mark.slow],
    "docs/families.md": [pytest.mark.slow],
    "docs/fine_tuning.md": [pytest.mark.slow],
    "docs/order_preserving.md": [pytest.mark.slow],
    "docs/lattices_and_angles.md": [pytest.mark.slow],
    "docs/without_learning.md": [pytest.mark.slow],
    "docs/external_energies.md": [pytest.mark.slow],
    "docs/models_of_other_packages.md": [
        pytest.mark.adapters,
        pytest.mark.skipif(not all(map(find_spec, ("pymc", "numpyro", "pyro"))), reason="needs pymc, numpyro and pyro"),
    ],
    "docs/molecules.md": [
        pytest.mark.adapters,
        pytest.mark.skipif(not (find_spec("openmm") and find_spec("ase")), reason="needs the extra molecules"),
    ],
}


@pytest.mark.parametrize(
    "page", [pytest.param(name, marks=MARKS.get(name, ())) for name, text in TEXT.items() if "```python" in text]
)
def test_python_blocks_run_and_print_what_is_shown(page: str) -> None:
    torch.set_default_dtype(torch.float32)
    namespace, printed, blocks = {"__name__": "page"}, "", fences(TEXT[page])
    for k, (language, content) in enumerate(blocks):
        if language == "text":
            assert agree(content, printed), f"{page} shows\n{content}\nand the code before it prints\n{printed}"
            printed = ""
        if language == "python":
            assert not printed, f"{page} does not show that a block prints\n{printed}"
            # The same code on a shorter budget: what is tested is that it runs.
            code = compile(content.replace("max_steps=400", "max_steps=20"), f"{page}, block {k + 1}", "exec")
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(code, namespace)
            printed = output.getvalue()
    assert not printed, f"{page} does not show that its last block prints\n{printed}"


def test_code_is_in_blocks_of_known_languages() -> None:
    known = {"python", "text", "bash", "yaml", "", "{toctree}", "{include} ../README.md", "{include} ../CHANGELOG.md"}
    for page, text in TEXT.items():
        for language, _ in fences(text):
            assert language in known or language.startswith(("{literalinclude}", "{eval-rst}")), (page, language)
    python = [content for text in TEXT.values() for language, content in fences(text) if language == "python"]
    assert len(python) > 20


def commands() -> list[str]:
    """Every command of the command line that a page shows, without comments."""
    bash = [content for text in TEXT.values() for language, content in fences(text) if language == "bash"]
    lines = [line.partition(" #")[0].strip() for line in "\n".join(bash).split("\n")]
    return sorted({line for line in lines if line.startswith("diffsampler ")})


def understands(args: list[str], folder: Path) -> int:
    """The exit code of a command that only says what it would do, in a folder with the classes that pages tell of."""
    body = "import targets\n\n"
    for name in ("MyTarget", "Posterior", "Banana"):
        body += f"class {name}(targets.Gaussian):\n"
        body += "    def __init__(self, bend: float = 1.0):\n        super().__init__([bend])\n\n"
    for file in ("my_file.py", "banana.py"):
        (folder / file).write_text(body)
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(ROOT / "examples")
    with pytest.raises(SystemExit) as ended:
        main([*args, "--print_config"])
    return ended.value.code


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str, working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    # No run has written a checkpoint here.
    args = re.sub(r"--ckpt_path \S+", "--model.target=Funnel", command).split()[1:]
    assert understands(args, working_folder) == 0, capsys.readouterr().err


def test_a_command_that_is_not_understood_would_be_found(working_folder: Path) -> None:
    assert understands(["fit", "--model.target=banana.Banana", "--model.target.bent=1.0"], working_folder) == 2
    assert {"fit", "test", "predict", "reference"} <= {command.split()[1] for command in commands()}


def test_files_that_pages_name_exist() -> None:
    for page, text in TEXT.items():
        for name in re.findall(r"(?:docs|examples|diffsampler|tests|targets)/[\w/]+\.(?:py|yaml|md|png)", text):
            assert (ROOT / name).exists(), (page, name)
        for name in re.findall(r"python -m ([\w.]+)", text):
            assert (ROOT / name.replace(".", "/")).with_suffix(".py").exists(), (page, name)
        for preset in re.findall(r"preset `(\w+)`", text):
            assert (ROOT / "examples" / "presets" / f"{preset}.yaml").exists(), (page, preset)


def test_links_lead_to_pages_and_headings() -> None:
    for page, text in TEXT.items():
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            path, _, heading = link.partition("#")
            goal = (ROOT / page).parent / path if path else ROOT / page
            assert goal.exists(), (page, link)
            headings = re.findall(r"^#+ (.+)$", goal.read_text(), re.MULTILINE) if heading else []
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert not heading or heading in slugs, (page, link)
        for language, _ in fences(text):
            if language.startswith(("{literalinclude}", "{include}")):
                assert ((ROOT / page).parent / language.split()[1]).exists(), (page, language)


def test_every_extension_is_shown() -> None:
    shown = {Path(name).name for name in re.findall(r"tests/extending/(\w+\.py)", "".join(TEXT.values()))}
    assert shown == {file.name for file in (ROOT / "tests" / "extending").glob("test_*.py")}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"make ([\w-]+)`|^make ([\w-]+)", "\n".join(TEXT.values()), re.MULTILINE):
        assert re.search(rf"^{''.join(name)}:", makefile, re.MULTILINE), name


def test_tables_of_methods_name_every_class() -> None:
    rooms = ("processes", "priors", "spaces", "coordinates", "networks", "losses", "behaviours")
    families = [importlib.import_module(f"diffsampler.{room}") for room in rooms]
    families += [importlib.import_module("diffsampler.processes.grids"), targets]
    apart = {"DensityInCoordinates", "CosineSchedule", "LinearSchedule"}
    for family in families:
        for name in getattr(family, "__all__", [name for name in vars(family) if name.endswith("Grid")]):
            part = getattr(family, name)
            if inspect.isclass(part) and not inspect.isabstract(part) and name not in apart:
                assert f"`{name}`" in TEXT["docs/methods.md"], name


def test_presets_are_named() -> None:
    for file in (ROOT / "examples" / "presets").glob("*.yaml"):
        assert f"`{file.stem}`" in TEXT["docs/methods.md"], file.stem


def test_readme_is_short_and_leads_to_every_page_of_readers() -> None:
    assert len(TEXT["README.md"].splitlines()) <= 100
    linked = set(re.findall(r"\]\((docs/[\w/]+\.md)\)", TEXT["README.md"]))
    pages = {page for page in TEXT if page.startswith("docs/") and page.count("/") == 1}
    assert pages - linked == {"docs/index.md", "docs/changelog.md"}


def test_the_defaults_that_pages_state() -> None:
    from diffsampler.losses import SubTrajectoryBalance
    from diffsampler.recipes import Dgfs, SearchLearnCorrect
    from diffsampler.training.data import TrajectoryCounts
    from diffsampler.training.module import SamplerModule

    page = TEXT["docs/command_line.md"]
    rows = dict(re.findall(r"^\| `(?:model|data|ema)\.(.+?) \|.*\| (.+?) \|$", page, re.MULTILINE))
    module = inspect.signature(SamplerModule).parameters
    rates = [float(value) for value in rows["lr`, `flow_lr`, `log_z_lr`"].split(", ")]
    assert rates == [Dgfs().training().lr, *(module[name].default for name in ("flow_lr", "log_z_lr"))]
    assert rows["loss`"] == f"`SubTrajectoryBalance(lamda={SubTrajectoryBalance().lamda:.0f})`"
    counts = inspect.signature(TrajectoryCounts).parameters
    stated = [int(v.replace(" ", "")) for v in rows["batch_size`, `steps_per_epoch`"].split(", ")]
    assert stated == [counts["batch_size"].default, counts["steps_per_epoch"].default]
    draws = [
        int(v.replace(" ", ""))
        for v in rows["num_eval_samples`, `num_test_samples`, `num_predict_samples`"].split(", ")
    ]
    assert draws == [counts[f"num_{name}_samples"].default for name in ("eval", "test", "predict")]
    alone = SearchLearnCorrect().training()
    assert f"learning rate is {alone.lr:.0e}".replace("e-0", "e-") in page and f"tolerance {alone.tolerance}" in page


def documented_modules() -> list[str]:
    """Modules with examples in docstrings, of the library and of the targets that ship."""
    files = [*(ROOT / "diffsampler").rglob("*.py"), *(ROOT / "targets").glob("*.py")]
    found = [file.relative_to(ROOT).with_suffix("") for file in files if ">>> " in file.read_text()]
    return sorted(".".join(name.parts) for name in found)


@pytest.mark.parametrize("module", documented_modules())
def test_examples_in_docstrings(module: str) -> None:
    torch.set_default_dtype(torch.float32)
    names = {"torch": torch, **{name: getattr(diffsampler, name) for name in ("FunctionTarget", "Sampler")}}
    result = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert result.attempted > 0 and result.failed == 0


def test_api_pages_name_modules_that_exist_and_every_room() -> None:
    pages = "".join(text for page, text in TEXT.items() if page.startswith("docs/api/"))
    named = set(re.findall(r"automodule:: ([\w.]+)", pages))
    for name in named:
        assert importlib.import_module(name).__doc__, name
    rooms = {f"diffsampler.{room.name}" for room in pkgutil.iter_modules(diffsampler.__path__) if room.ispkg}
    assert {room for room in rooms if not any(name.startswith(room) for name in named)} == {"diffsampler.cli"}
