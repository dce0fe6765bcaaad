"""Every process x loss x behaviour at T = 3, B = 4, D = 2, over the lists of helpers.py; networks in turns."""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import (
    BEHAVIOURS,
    BOUNDS,
    CONTROLS,
    FLOWS,
    LOSSES,
    PERIODIC_CONTROLS,
    PERIODIC_FLOWS,
    PROCESSES,
    PROCESSES_OF_THEIR_OWN_KIND,
    UNDERDAMPED_CONTROLS,
    ProcessCase,
    angle_and_real,
    random_sampler,
    two_modes,
)
from torch import nn

from diffsampler import InputError, Target
from diffsampler.behaviours import Behaviour
from diffsampler.losses import Objective
from diffsampler.networks import Control, StateFlow
from diffsampler.processes import Process
from targets import VonMisesMixture

NETWORKS = {
    "Torus": list(itertools.product(PERIODIC_CONTROLS, PERIODIC_FLOWS)),
    "ProductProcess": list(itertools.product(PERIODIC_CONTROLS, PERIODIC_FLOWS)),
    "Underdamped": list(itertools.product(UNDERDAMPED_CONTROLS, FLOWS)),
}
TARGETS: dict[str, Callable[[], Target]] = {"Torus": VonMisesMixture, "ProductProcess": angle_and_real}
USUAL_NETWORKS = list(itertools.product(CONTROLS, FLOWS))
MAKERS: list[tuple[str, Callable[[], Objective]]] = [(case.name, case.make) for case in LOSSES]
MAKERS += [(make.__name__, make) for make in BOUNDS]


def cases() -> Iterator[object]:
    """All triples, each by its own name; every pair of parts is in one that is not slow."""
    for (i, process), (j, (loss_name, make_loss)), (k, behaviour) in itertools.product(
        enumerate([*PROCESSES, *PROCESSES_OF_THEIR_OWN_KIND]), enumerate(MAKERS), enumerate(BEHAVIOURS)
    ):
        networks = NETWORKS.get(process.name, USUAL_NETWORKS)
        turn = (i + j - k) % len(BEHAVIOURS)
        control, flow = networks[(i + j + turn) % len(networks)]
        name = f"{process.name}-{loss_name}-{behaviour.__name__}"
        marks = pytest.mark.slow if turn else ()
        yield pytest.param(process, loss_name, make_loss, behaviour, control, flow, id=name, marks=marks)


def test_every_pair_is_in_the_fast_suite() -> None:
    rows = [[process.name, loss, behaviour] for process, loss, _, behaviour, *_ in (c.values for c in FAST)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        sizes = (len({str(row[side]) for row in rows}) for side in (a, b))
        assert len({(str(row[a]), str(row[b])) for row in rows}) == math.prod(sizes)
    for name in ("PinnedBrownian", *NETWORKS):
        networks = NETWORKS.get(name, USUAL_NETWORKS)
        met = {c.values[-2:] for c in FAST if NETWORKS.get(c.values[0].name, USUAL_NETWORKS) is networks}
        assert met == set(networks)


CASES = list(cases())
FAST = [case for case in CASES if not case.marks]


@pytest.mark.parametrize(("process", "loss_name", "make_loss", "behaviour", "control", "flow"), CASES)
def test_combination(
    process: ProcessCase,
    loss_name: str,
    make_loss: Callable[[], Objective],
    behaviour: Callable[[], Behaviour],
    control: Callable[[Process], Control],
    flow: Callable[[Process], StateFlow],
    device: torch.device,
    generator: torch.Generator,
) -> None:
    target = TARGETS.get(process.name, two_modes)()
    name = f"{process.name}, {loss_name}, {behaviour.__name__}, {control.__name__}, {flow.__name__}"
    sampler = random_sampler(target, process=process.make(), control=control, flow=flow, grid=3).to(device)
    loss_function, source = make_loss(), behaviour()
    if (loss_function.on_policy and not source.on_policy) or (loss_function.backward and not source.backward):
        with pytest.raises(InputError, match=f"{type(loss_function).__name__} needs"):
            loss_function.check(sampler.dynamics, source)
        return
    if loss_name == "PathwiseReverseKL" and process.name == "AnnealedLangevin-mixture":
        with pytest.raises(InputError, match="cannot learn GaussianMixturePrior"):
            loss_function.check(sampler.dynamics, source)
        return
    loss_function.check(sampler.dynamics, source)
    for turn in range(3):
        sampler.zero_grad()
        loss = loss_function.step(sampler.dynamics, source, 4, generator, progress=0.2)
        assert loss.shape == () and loss.dtype == torch.float64 and loss.isfinite(), f"{name}, turn {turn}"
        loss.backward()
        trained = {
            "process.": True,
            "control.": True,
            "backward_control.": loss_name != "MaximumLikelihood",
            "flow.": loss_function.uses_flow,
            "log_z": loss_function.uses_log_z,
        }
        for part, expected in trained.items():
            gradients = [torch.zeros(1) if p.grad is None else p.grad for p in _parameters(sampler.policy, part)]
            assert all(gradient.isfinite().all() for gradient in gradients), f"{name}: {part}"
            largest = max((float(gradient.abs().max()) for gradient in gradients), default=None)
            if largest is not None:
                # LogVariance sees log Z cancel up to rounding.
                rounding = 1e-12 * max(1.0, abs(float(loss.detach())) ** 0.5)
                assert (largest > rounding) == expected, f"{name}: {part}, turn {turn}"


def _parameters(module: nn.Module, prefix: str) -> list[nn.Parameter]:
    return [parameter for key, parameter in module.named_parameters() if key.startswith(prefix)]
