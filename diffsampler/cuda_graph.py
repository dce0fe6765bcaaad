"""Rollouts as CUDA graphs: thousands of small kernels, started by one call."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler.target import CountedTarget
from diffsampler.trajectory import Path

__all__ = ["GraphedRollout", "record_cuda_graph"]

# Rollouts of a kind before one is recorded: by then compilers have run, and what happens once has happened.
WARM_UP = 3

RollOut = Callable[[Tensor, torch.Generator | None], Path]
Record = Callable[[Callable[[], Path]], tuple[Callable[[], None], Path]]


def record_cuda_graph(call: Callable[[], Path]) -> tuple[Callable[[], None], Path]:
    """What repeats a call on a GPU, and the tensors that every repetition writes to.

    Noise must come from the GPU's default generator, which all versions of torch record.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        path = call()
    return graph.replay, path


class _Recording(NamedTuple):
    """A repetition; where it reads parameters and times, and leaves its path; what it counts for."""

    addresses: list[int]
    times: Tensor
    replay: Callable[[], None]
    path: Path
    num_evaluations: int
    num_invalid: Tensor


class GraphedRollout:
    """Rollouts whose kernels are recorded once and then started together; the same numbers as without.

    There is one recording for each number of trajectories and steps, made anew where parameters have moved in memory;
    what Python decides inside a target stays as it was then. Where recording fails, since a target brings numbers back
    to the host for one, rollouts go on without, after a warning. Copies start anew.

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
            kind: all that decides the shapes of a rollout.
            times: the grid.
            generator: the source of all noise.
        """
        self._num_calls[kind] = self._num_calls.get(kind, 0) + 1
        if self._failed or times.device.type != self._device_type or self._num_calls[kind] <= WARM_UP:
            return roll_out(times, generator)
        addresses = [tensor.data_ptr() for tensor in tensors]
        recording = self._recordings.get(kind)
        if recording is None or recording.addresses != addresses:
            try:
                recording = self._recordings[kind] = self._make(roll_out, counter, times, addresses)
            except Exception as error:
                self._failed = True
                first_line = str(error).strip().partition("\n")[0]
                warnings.warn(f"No CUDA graph of a rollout, the run goes on without: {first_line[:300]}", stacklevel=2)
                logging.getLogger(__name__).debug("recording a rollout failed", exc_info=error)
                return roll_out(times, generator)
        recording.times.copy_(times)
        with _default_noise_of(generator, times.device):
            recording.replay()
        counter.count(recording.num_evaluations, recording.num_invalid.clone())
        path = recording.path
        return Path(times, *(None if part is None else part.clone() for part in (path.x, path.log_prob, path.score)))

    def _make(self, roll_out: RollOut, counter: CountedTarget, times: Tensor, addresses: list[int]) -> _Recording:
        times = times.clone()
        with counter.counting_apart() as counted:
            replay, path = self._record(lambda: roll_out(times, None))
            return _Recording(addresses, times, replay, path, *counted())

    def _forget(self) -> None:
        self._recordings: dict[tuple[int, ...], _Recording] = {}
        self._num_calls: dict[tuple[int, ...], int] = {}
        self._failed = False

    def __getstate__(self) -> dict[str, Any]:
        return {"_record": self._record, "_device_type": self._device_type}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


@contextmanager
def _default_noise_of(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """The default generator of a device goes on where another one is, and takes that one along; then it goes back."""
    if generator is None:
        yield
        return
    default = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index]
    before = default.get_state()
    default.set_state(generator.get_state())
    yield
    generator.set_state(default.get_state())
    default.set_state(before)
