"""Rollouts as CUDA graphs: thousands of small kernels, started by one call."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.errors import warn_of
from diffsampler.paths.records import Path

# Plain rollouts of a kind before one is recorded: by then compilers and libraries have made what they make once.
WARM_UP = 3

RollOut = Callable[[Tensor, torch.Generator | None], Path]
Record = Callable[[Callable[[], Path], torch.device], tuple[Callable[[], None], Path]]


def record_cuda_graph(call: Callable[[], Path], device: torch.device) -> tuple[Callable[[], None], Path]:
    """What repeats a call on a GPU, and the tensors that every repetition writes to.

    Noise must come from the device's default generator, which all versions of torch record.
    """
    graph = torch.cuda.CUDAGraph()
    # The second context brings the stream back if recording fails.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
            path = call()
    return graph.replay, path


class _Recording(NamedTuple):
    """A repetition, where it reads its times and leaves its path, and what it counts for."""

    times: Tensor
    replay: Callable[[], None]
    path: Path
    num_evaluations: int
    num_invalid: Tensor


@dataclass
class _Kind:
    """Rollouts of one shape, with parameters in one place."""

    addresses: list[int]
    num_plain: int = 0
    recording: _Recording | None = None


class GraphedRollout:
    """Rollouts whose kernels are recorded once and then started together; the same numbers as without.

    There is one recording for each kind of rollout, made anew where parameters have moved in memory. What Python
    decides on the way, inside a target for one, stays as it was. Where a rollout cannot be recorded, since a target
    brings numbers back to the host, rollouts go on without, after a warning. Copies start anew.

    Arguments:
        record: makes the repetition of a call.
        device_type: of the devices where it can.
    """

    def __init__(self, record: Record = record_cuda_graph, device_type: str = "cuda") -> None:
        self._record = record
        self._device_type = device_type
        self._forget()

    def __call__(
        self,
        roll_out: RollOut,
        tensors: Iterable[Tensor],
        counter: CountedTarget,
        kind: tuple[int, ...],
        times: Tensor,
        generator: torch.Generator | None,
    ) -> Path:
        """A path.

        Arguments:
            roll_out: the plain rollout, at given times and with the noise of a generator.
            tensors: what it reads beside times.
            counter: of its target evaluations.
            kind: what decides shapes and what Python does.
            times: the grid.
            generator: the source of all noise.
        """
        if self._failed or times.device.type != self._device_type or torch.is_inference_mode_enabled():
            return roll_out(times, generator)
        addresses = [tensor.data_ptr() for tensor in tensors]
        seen = self._seen.get(kind)
        if seen is None or seen.addresses != addresses:
            seen = self._seen[kind] = _Kind(addresses)
        if seen.num_plain < WARM_UP:
            seen.num_plain += 1
            return roll_out(times, generator)
        if seen.recording is None:
            try:
                seen.recording = self._make(roll_out, counter, times)
            except Exception as error:
                self._failed = True
                warn_of("No CUDA graph of a rollout, the run goes on without", error)
                return roll_out(times, generator)
        return self._repeat(seen.recording, counter, times, generator)

    def _make(self, roll_out: RollOut, counter: CountedTarget, times: Tensor) -> _Recording:
        times = times.clone()
        with _default_noise_kept(times.device):
            with _no_waiting(times.device):
                roll_out(times, None)  # a recording that fails would leave allocator and noise in disorder
            with counter.counting_apart() as counted:
                replay, path = self._record(lambda: roll_out(times, None), times.device)
                return _Recording(times, replay, path, *counted())

    @staticmethod
    def _repeat(
        recording: _Recording, counter: CountedTarget, times: Tensor, generator: torch.Generator | None
    ) -> Path:
        recording.times.copy_(times)
        if generator is None:
            recording.replay()
        else:
            with _default_noise_kept(times.device):
                default = _default_generator(times.device)
                default.set_state(generator.get_state())
                recording.replay()
                generator.set_state(default.get_state())
        counter.count(recording.num_evaluations, recording.num_invalid)
        path = recording.path
        return Path(times, *(None if part is None else part.clone() for part in (path.x, path.log_prob, path.score)))

    def _forget(self) -> None:
        self._seen: dict[tuple[int, ...], _Kind] = {}
        self._failed = False

    def __getstate__(self) -> dict[str, Any]:
        return {"_record": self._record, "_device_type": self._device_type}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


@contextmanager
def _no_waiting(device: torch.device) -> Iterator[None]:
    """Where the host would wait for a GPU, and so nothing could be recorded, torch raises a RuntimeError instead."""
    if device.type != "cuda":
        yield
        return
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch does not detect all of it yet
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def _default_noise_kept(device: torch.device) -> AbstractContextManager[None]:
    """After this context a device's default generator is where it was."""
    return torch.random.fork_rng([] if device.type == "cpu" else [device.index])


def _default_generator(device: torch.device) -> torch.Generator:
    return torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index]
