"""Every process x loss x behaviour x drift x flow, at T = 3, B = 4, D = 2, over the lists in helpers.py."""

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import (
    BEHAVIOURS,
    DRIFTS,
    FLOWS,
    LOSSES,
    PROCESSES,
    LossCase,
    ProcessCase,
    by_name,
    random_sampler,
    two_modes,
)
from torch import nn

from diffsampler.behaviours import Behaviour


@pytest.mark.parametrize("flow", FLOWS, ids=by_name)
@pytest.mark.parametrize("drift", DRIFTS, ids=by_name)
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=by_name)
@pytest.mark.parametrize("loss_case", LOSSES, ids=by_name)
@pytest.mark.parametrize("process", PROCESSES, ids=by_name)
def test_combination(
    process: ProcessCase,
    loss_case: LossCase,
    behaviour: Callable[[], Behaviour],
    drift: type,
    flow: type,
    device: torch.device,
    generator: torch.Generator,
) -> None:
    name = f"{process.name}, {loss_case.name}, {behaviour.__name__}, {drift.__name__}, {flow.__name__}"
    sampler = random_sampler(two_modes(), process=process.make(), drift=drift, flow=flow, grid=3).to(device)
    loss_function = loss_case.make()
    loss_function.check(sampler)
    path = behaviour().paths(sampler, 4, generator, progress=0.2)
    loss = loss_function(sampler.evaluate(path))
    assert loss.shape == () and loss.dtype == torch.float64 and loss.isfinite() and loss > 0, name
    loss.backward()
    trained = {"process.": True, "drift.": True, "flow.": loss_function.uses_flow, "log_z": loss_function.uses_log_z}
    for part, expected in trained.items():
        for key, parameter in _parameters(sampler, part):
            gradient = torch.zeros(1) if parameter.grad is None else parameter.grad
            assert gradient.isfinite().all(), f"{name}: {key}"
            # LogVariance sees log Z cancel up to rounding.
            assert bool(gradient.abs().max() > 1e-12) == expected, f"{name}: {key}"


def _parameters(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
    return ((key, parameter) for key, parameter in module.named_parameters() if key.startswith(prefix))
