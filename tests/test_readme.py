"""README's Python blocks run, and its commands are the ones that exist."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[1])
def test_python_blocks_run(block, capsys, monkeypatch):
    torch.set_default_dtype(torch.float32)
    # The same code on a shorter budget: what is tested is that it runs.
    exec(compile(block.replace("max_steps=400", "max_steps=20"), "README.md", "exec"), {"__name__": "readme"})


def test_there_are_blocks():
    assert len(BLOCKS) >= 2


def test_every_file_that_readme_names_exists():
    for name in re.findall(r"(?:examples|diffsampler|tests|targets)/[\w/]+\.(?:py|yaml)", README):
        assert (ROOT / name).exists(), name


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"make ([\w-]+)", README):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_the_defaults_that_readme_states():
    import inspect

    from diffsampler.losses import SubTrajectoryBalance
    from diffsampler.recipes import Dgfs
    from diffsampler.training.data import TrajectoryCounts
    from diffsampler.training.module import SamplerModule

    rows = dict(re.findall(r"^\| `(?:model|data|ema)\.(.+?) \|.*\| (.+?) \|$", README, re.MULTILINE))
    module = inspect.signature(SamplerModule).parameters
    rates = [float(value) for value in rows["lr`, `flow_lr`, `log_z_lr`"].split(", ")]
    assert rates == [Dgfs().training().lr, *(module[name].default for name in ("flow_lr", "log_z_lr"))]
    assert rows["loss`"] == f"`SubTrajectoryBalance(lamda={SubTrajectoryBalance().lamda:.0f})`"
    counts = inspect.signature(TrajectoryCounts).parameters
    stated = [int(v.replace(" ", "")) for v in rows["batch_size`, `steps_per_epoch`"].split(", ")]
    assert stated == [counts["batch_size"].default, counts["steps_per_epoch"].default]
