"""Every process x loss x behaviour at T = 3, B = 4, D = 2, over the lists of helpers.py; networks in turns."""

import itertools
from collections.abc import Callable

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
    by_name,
    random_sampler,
    two_modes,
)
from torch import nn

from diffsampler import InputError
from diffsampler.behaviours import Behaviour
from diffsampler.losses import Objective
from targets import VonMisesMixture

NETWORKS = itertools.cycle(itertools.product(CONTROLS, FLOWS))
NETWORKS_OF_THEIR_OWN_KIND = {
    "Torus": itertools.cycle(itertools.product(PERIODIC_CONTROLS, PERIODIC_FLOWS)),
    "Underdamped": itertools.cycle(itertools.product(UNDERDAMPED_CONTROLS, FLOWS)),
}
# Seven losses and more share each pair of networks with every process: nothing depends on the order.
MAKERS: list[tuple[str, Callable[[], Objective]]] = [(case.name, case.make) for case in LOSSES]
MAKERS += [(make.__name__, make) for make in BOUNDS]


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=by_name)
@pytest.mark.parametrize(("loss_name", "make_loss"), MAKERS, ids=lambda part: part if isinstance(part, str) else "")
@pytest.mark.parametrize("process", [*PROCESSES, *PROCESSES_OF_THEIR_OWN_KIND], ids=by_name)
def test_combination(
    process: ProcessCase,
    loss_name: str,
    make_loss: Callable[[], Objective],
    behaviour: Callable[[], Behaviour],
    device: torch.device,
    generator: torch.Generator,
) -> None:
    control, flow = next(NETWORKS_OF_THEIR_OWN_KIND.get(process.name, NETWORKS))
    target = VonMisesMixture() if process.name == "Torus" else two_modes()
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
            gradients = [torch.zeros(1) if p.grad is None else p.grad for p in _parameters(sampler, part)]
            assert all(gradient.isfinite().all() for gradient in gradients), f"{name}: {part}"
            largest = max((float(gradient.abs().max()) for gradient in gradients), default=None)
            if largest is not None:
                # LogVariance sees log Z cancel up to rounding.
                rounding = 1e-12 * max(1.0, abs(float(loss.detach())) ** 0.5)
                assert (largest > rounding) == expected, f"{name}: {part}, turn {turn}"


def _parameters(module: nn.Module, prefix: str) -> list[nn.Parameter]:
    return [parameter for key, parameter in module.named_parameters() if key.startswith(prefix)]
