"""Every test runs in float64 on one thread; `--device cuda` runs the batteries of parts on a GPU."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# A pool of threads costs more than it gives on tensors this small, and sums would depend on the machine.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the batteries: cpu, cuda, ...")


def pytest_configure(config: pytest.Config) -> None:
    # Before tests are imported: what modules make is there too.
    if config.getoption("--device") != "cpu":
        torch.set_default_device(config.getoption("--device"))
        torch.backends.cudnn.allow_tf32 = False  # to compare convolutions to rounding


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """float64, and networks that torch initialises the same way whichever tests run before."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(previous)


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the command line, which works in float32 and puts its folder on the path."""
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(20240613)
