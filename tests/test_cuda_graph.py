"""Rollouts that are recorded and repeated."""

import copy
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from helpers import PROCESSES, PROCESSES_OF_THEIR_OWN_KIND, ProcessCase, by_name, two_modes

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.coordinates import ScaledCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.networks import Control, CoordinatewiseControl, FourierMLP, LangevinControl, PreconditionedMLP
from diffsampler.paths import Path, rollout
from diffsampler.paths.cuda_graph import WARM_UP, GraphedRollout
from diffsampler.processes.grids import JitteredGrid

STEPS, BATCH = 5, 8
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def target() -> FunctionTarget:
    """NaN for some points: invalid evaluations are counted too."""
    return FunctionTarget(lambda x: torch.where(x[..., 0] > 1.5, math.nan, -x.square().sum(-1)), dim=3)


class Tape:
    """In the place of CUDA graphs: repetitions write to the tensors of the recording, count nothing, and take the
    default generator's noise. They run Python again, so what a graph would freeze is not seen here."""

    def __init__(self, counter: CountedTarget) -> None:
        self.counter = counter
        self.num_recordings = 0
        self.num_replays = 0

    def __call__(self, call: Callable[[], Path], device: torch.device) -> tuple[Callable[[], None], Path]:
        self.num_recordings += 1
        path = call()
        invalid = self.counter._num_invalid

        def replay() -> None:
            self.num_replays += 1
            with self.counter.counting_apart() as counted:
                again = call()
                invalid.copy_(counted()[1])
            for part in ("x", "log_prob", "score"):
                getattr(path, part).copy_(getattr(again, part))

        return replay, path


def pair(device: str) -> tuple[Sampler, Sampler]:
    torch.manual_seed(0)
    plain, graphed = (Sampler(target(), grid=JitteredGrid(STEPS)) for _ in range(2))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    graphed.load_state_dict(plain.state_dict())
    return plain.to(device), graphed.to(device)


def check_equal(plain: Sampler, graphed: Sampler, device: str) -> int:
    """Path by path, through a change of parameters and one of their place in memory; how many more rollouts it took."""
    generators = [torch.Generator(device).manual_seed(1) for _ in range(2)]
    paths: list[tuple[Path, Path]] = []
    for k in range(4 * WARM_UP):
        if k in (WARM_UP + 1, 2 * WARM_UP):
            for sampler in (plain, graphed):
                with torch.no_grad():
                    for parameter in sampler.parameters():
                        parameter.mul_(1.1)
        if k == 2 * WARM_UP:
            for parameter in graphed.parameters():
                parameter.data = parameter.data.clone()
        expected = rollout(plain.dynamics, BATCH, generators[0])
        state = default_state(device)
        paths.append((expected, rollout(graphed.dynamics, BATCH, generators[1])))
        assert torch.equal(default_state(device), state)
    for expected, path in paths:  # at the end: nothing that was handed out may change
        for part in ("times", "x", "log_prob", "score"):
            torch.testing.assert_close(getattr(path, part), getattr(expected, part), equal_nan=True)
    assert not torch.equal(paths[-1][1].x, paths[-2][1].x)
    assert torch.equal(*(generator.get_state() for generator in generators))
    assert graphed.counter.num_invalid >= plain.counter.num_invalid > 0
    return (graphed.num_target_evaluations - plain.num_target_evaluations) // (BATCH * (STEPS + 1))


def default_state(device: str) -> torch.Tensor:
    return torch.get_rng_state() if device == "cpu" else torch.cuda.get_rng_state()


def test_recorded_rollouts_are_the_plain_ones() -> None:
    plain, graphed = pair("cpu")
    tape = Tape(graphed.counter)
    graphed._graphed = GraphedRollout(tape, "cpu")
    # Each recording is tried first: evaluations, counted as such.
    assert check_equal(plain, graphed, "cpu") == tape.num_recordings == 2
    assert tape.num_replays == 2 * WARM_UP


@needs_gpu
def test_rollouts_as_cuda_graphs_are_the_plain_ones() -> None:
    plain, graphed = pair("cuda")
    graphed._graphed = GraphedRollout()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a recording that fails
        assert check_equal(plain, graphed, "cuda") == 2


@needs_gpu
def test_compiled_training_on_a_gpu_is_the_plain_one() -> None:
    samplers = []
    for compile in (False, True):
        torch.manual_seed(0)
        sampler = Sampler(target(), grid=10, compile=compile)
        fit(sampler, max_steps=20, steps_per_epoch=20, accelerator="gpu", enable_progress_bar=False)
        samplers.append(sampler)
    assert any(kind.recording for kind in samplers[1]._graphed._seen.values())
    # Rounding of compiled steps, 1e-15 in float64, grows over 20 steps of Adam; a stale path would move all by 1e-3.
    for plain, graphed in zip(samplers[0].parameters(), samplers[1].parameters(), strict=True):
        torch.testing.assert_close(plain, graphed, rtol=1e-6, atol=1e-6)


@needs_gpu
def test_a_target_that_asks_the_host_is_not_recorded() -> None:
    def asks(x: torch.Tensor) -> torch.Tensor:
        return -x.square().sum(-1) * (1.0 if x.isfinite().all() else 0.0)

    sampler = Sampler(FunctionTarget(asks, dim=3), grid=5).cuda()
    sampler._graphed = GraphedRollout()
    generator = torch.Generator("cuda").manual_seed(0)
    with pytest.warns(UserWarning, match="No CUDA graph of a rollout"):
        for _ in range(WARM_UP + 1):
            rollout(sampler.dynamics, BATCH, generator)
    assert sampler.sample(4).isfinite().all()  # by the default generator, which is as it was
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_where_recording_fails_a_run_goes_on_without() -> None:
    def refuse(call: Callable[[], Path], device: torch.device) -> None:
        call()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    plain, graphed = pair("cpu")
    graphed._graphed = GraphedRollout(refuse, "cpu")
    with pytest.warns(UserWarning, match="the run goes on without: operation not permitted when stream is capturing$"):
        assert check_equal(plain, graphed, "cpu") == 1


def test_copies_record_anew() -> None:
    _, graphed = pair("cpu")
    graphed._graphed = GraphedRollout(Tape(graphed.counter), "cpu")
    for _ in range(WARM_UP + 1):
        rollout(graphed.dynamics, BATCH)
    assert graphed._graphed._seen
    assert not copy.deepcopy(graphed)._graphed._seen


def test_wider_noise_other_devices_and_inference_mode_are_not_recorded() -> None:
    _, sampler = pair("cpu")
    tape = Tape(sampler.counter)
    for device_type, noise_scale, inference in (("cpu", 1.5, False), ("cuda", 1.0, False), ("cpu", 1.0, True)):
        sampler._graphed = GraphedRollout(tape, device_type)
        with torch.inference_mode(inference):
            for _ in range(WARM_UP + 1):
                rollout(sampler.dynamics, BATCH, noise_scale=noise_scale)
        assert not sampler._graphed._seen
    assert not tape.num_recordings


@pytest.mark.parametrize("case", [*PROCESSES, *PROCESSES_OF_THEIR_OWN_KIND[2:]], ids=by_name)
@pytest.mark.parametrize(
    "control", [FourierMLP, PreconditionedMLP, LangevinControl, CoordinatewiseControl], ids=by_name
)
def test_no_rollout_asks_the_host(case: ProcessCase, control: type[Control]) -> None:
    # Tensors without data raise where their values would be read.
    if case.name == "Underdamped" and control is not FourierMLP:
        pytest.skip("takes the score by its process")
    parts = {"coordinates": ScaledCoordinates, "flow": None, "grid": 4}
    sampler = Sampler(two_modes(), process=case.make(), control=control, **parts).to("meta")
    path = rollout(sampler.dynamics, 5)
    assert path.x.is_meta and path.x.shape[:2] == (5, 5)
