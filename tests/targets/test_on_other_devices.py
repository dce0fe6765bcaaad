"""Targets under a default device that is not the CPU, as CUDA users set it."""

from collections.abc import Callable

import pytest
import torch

from diffsampler import FunctionTarget, Target
from targets import DoubleWell4, LennardJones, Phi4, Phi4Hopping, U1Gauge, XYModel

TARGETS = {
    "DoubleWell4": DoubleWell4,
    "LennardJones": lambda: LennardJones(5),
    "Phi4": lambda: Phi4((2, 2), -4.0, 6.975),
    "Phi4Hopping": lambda: Phi4Hopping((2, 2), 0.2, 0.022),
    "U1Gauge": lambda: U1Gauge((3, 3), 1.0),
    "XYModel, a chain": lambda: XYModel((6,), 0.8),
    "XYModel, a strip": lambda: XYModel((3, 3), 0.5),
    "from_energy": lambda: FunctionTarget.from_energy(lambda x: float(x @ x), 3, batched=False),
}


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
def test_made_under_another_default_device(make: Callable[[], Target]) -> None:
    # What NumPy and SciPy compute stays on the CPU: from "meta", as from a GPU, nothing comes back to it.
    expected = make().log_z
    with torch.device("meta"):
        assert make().log_z == expected
