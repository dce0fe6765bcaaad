"""Energies divided by a kT in other units are refused in a sentence: their values are so large that nothing is left."""

from typing import Any

import numpy as np
import pytest
import torch
from on_spaces import springs, two_angles

from diffsampler import FunctionTarget, InputError, Sampler, Target, fit
from diffsampler.baseline import reference

JOULES = 4.1e-21  # kT at 300 K
SAID = (
    r"^FunctionTarget.log_prob is \S+ at the highest point .* float64 knows that to \S+ nats only: give a temp.* kT in"
)


def energy(x: np.ndarray) -> float:
    return float((x[0] ** 2 - 1) ** 2 + 0.3 * x[0] + np.sin(x[0]) * x[1] + x[1] ** 2)


def forces(x: np.ndarray) -> np.ndarray:
    return -np.array([4 * x[0] * (x[0] ** 2 - 1) + 0.3 + np.cos(x[0]) * x[1], np.sin(x[0]) + 2 * x[1]])


def well(temperature: float, **more: Any) -> FunctionTarget:
    return FunctionTarget.from_energy(energy, dim=2, temperature=temperature, batched=False, **more)


def divided(target: FunctionTarget) -> FunctionTarget:
    return FunctionTarget(lambda x: (target.log_prob(x) - 1) / JOULES, target.dim, space=target.space)


TARGETS: dict[str, Target] = {
    "with forces": well(JOULES, forces=forces),
    "without": well(JOULES),
    "smaller still": well(1e-30, forces=forces),
    "particles": divided(springs()),
    "angles": divided(two_angles()),
    "a constant": FunctionTarget(lambda x: -x.square().sum(-1) - 1e18, dim=3),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_search_says_so(name: str) -> None:
    with pytest.raises(InputError, match=SAID) as caught:
        reference(TARGETS[name], 100, seed=0)
    assert ". " not in str(caught.value), "one sentence"


def test_training_says_so() -> None:
    with pytest.raises(InputError, match=SAID):
        fit(Sampler(TARGETS["with forces"]), seed=0, max_steps=2)


def test_what_is_large_but_known_is_searched() -> None:
    found = reference(FunctionTarget(lambda x: -0.5 * x.square().sum(-1) + 1e14, dim=1), 100, seed=0)
    # log (2 pi)^(1/2) beside 1e14, of which one unit in the last place is 0.016.
    assert abs(found.estimate.log_z - 1e14 - 0.5 * torch.tensor(2 * torch.pi).log()) < 0.1
