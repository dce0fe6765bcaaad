"""Rollouts that are recorded and repeated."""

import copy
import math
import warnings

import pytest
import torch

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.cuda_graph import WARM_UP, GraphedRollout
from diffsampler.grids import JitteredGrid
from diffsampler.trajectory import Path


def target() -> FunctionTarget:
    """NaN for some points: invalid evaluations are counted too."""
    return FunctionTarget(lambda x: torch.where(x[..., 0] > 1.5, math.nan, -x.square().sum(-1)), dim=3)


class Tape:
    """Records on a CPU what a CUDA graph records: repetitions read and write the same memory, and count nothing."""

    def __init__(self) -> None:
        self.num_recordings = 0
        self.num_replays = 0

    def __call__(self, call):
        self.num_recordings += 1
        path = call()

        def replay() -> None:
            self.num_replays += 1
            with sampler_of[0].counter.counting_apart() as counted:
                again = call()
                invalid.copy_(counted()[1])
            for part in ("x", "log_prob", "score"):
                getattr(path, part).copy_(getattr(again, part))

        invalid = sampler_of[0].counter._num_invalid
        return replay, path


sampler_of: list[Sampler] = []


def pair(device: str) -> tuple[Sampler, Sampler]:
    torch.manual_seed(0)
    plain, graphed = (Sampler(target(), grid=JitteredGrid(5)) for _ in range(2))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    graphed.load_state_dict(plain.state_dict())
    return plain.to(device), graphed.to(device)


def check_equal(plain: Sampler, graphed: Sampler, device: str) -> None:
    """Path by path, through a change of parameters and one of their place in memory."""
    generators = [torch.Generator(device).manual_seed(1) for _ in range(2)]
    paths: list[Path] = []
    for k in range(3 * WARM_UP):
        if k in (WARM_UP + 2, 2 * WARM_UP + 1):
            for sampler in (plain, graphed):
                with torch.no_grad():
                    for parameter in sampler.parameters():
                        parameter.mul_(1.1)
        if k == 2 * WARM_UP + 1:
            for parameter in graphed.parameters():
                parameter.data = parameter.data.clone()
        expected, path = (
            sampler.rollout(8, generator) for sampler, generator in zip((plain, graphed), generators, strict=True)
        )
        for part in ("times", "x", "log_prob", "score"):
            torch.testing.assert_close(getattr(path, part), getattr(expected, part), equal_nan=True)
        paths.append(path)
    assert not torch.equal(paths[-1].x, paths[-2].x)
    assert torch.equal(*(generator.get_state() for generator in generators))
    assert graphed.num_target_evaluations == plain.num_target_evaluations > 0
    assert graphed.counter.num_invalid == plain.counter.num_invalid > 0


def test_recorded_rollouts_are_the_plain_ones() -> None:
    plain, graphed = pair("cpu")
    tape = Tape()
    sampler_of[:] = [graphed]
    graphed._graphed = GraphedRollout(tape, "cpu")
    check_equal(plain, graphed, "cpu")
    assert (tape.num_recordings, tape.num_replays) == (2, 2 * WARM_UP)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rollouts_as_cuda_graphs_are_the_plain_ones() -> None:
    plain, graphed = pair("cuda")
    graphed._graphed = GraphedRollout()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a recording that fails
        check_equal(plain, graphed, "cuda")
    assert graphed._graphed._recordings


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_compiled_training_on_a_gpu_is_the_plain_one() -> None:
    elbos = []
    for compile in (False, True):
        torch.manual_seed(0)
        sampler = Sampler(target(), grid=10, compile=compile)
        history = fit(sampler, max_steps=20, steps_per_epoch=20, accelerator="gpu", enable_progress_bar=False)
        elbos.append(history[-1]["elbo"])
    assert elbos[0] == pytest.approx(elbos[1], abs=1e-2)


def test_where_recording_fails_a_run_goes_on_without() -> None:
    def refuse(call):
        call()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    plain, graphed = pair("cpu")
    graphed._graphed = GraphedRollout(refuse, "cpu")
    with pytest.warns(UserWarning, match="the run goes on without: operation not permitted when stream is capturing$"):
        check_equal(plain, graphed, "cpu")


def test_copies_record_anew() -> None:
    _, graphed = pair("cpu")
    sampler_of[:] = [graphed]
    graphed._graphed = GraphedRollout(Tape(), "cpu")
    for _ in range(WARM_UP + 1):
        graphed.rollout(8)
    assert graphed._graphed._recordings
    assert not copy.deepcopy(graphed)._graphed._recordings


def test_wider_noise_and_other_devices_are_not_recorded() -> None:
    sampler, tape = Sampler(target(), grid=5), Tape()
    for device_type, noise_scale in (("cpu", 1.5), ("cuda", 1.0)):
        sampler._graphed = GraphedRollout(tape, device_type)
        for _ in range(WARM_UP + 1):
            sampler.rollout(8, noise_scale=noise_scale)
    assert not tape.num_recordings
