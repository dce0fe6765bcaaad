"""Processes that stay, for energies that are computed one configuration at a time on one core."""

import multiprocessing
import os
import pickle
import signal
import sys
import warnings
import weakref
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

from diffsampler.energies.base import Energy, Evaluated
from diffsampler.errors import InputError

# As torch's DataLoader starts its own: functions of notebooks and lambdas need not be sent. Elsewhere it is not safe.
USUAL_START = "fork" if sys.platform == "linux" else "spawn"
SECONDS_TO_END = 1.0


class Workers:
    """An energy in k processes, each of which gets one part of every batch.

    They start on first use, by the method that `multiprocessing.set_start_method` was given (else fork on Linux, spawn
    elsewhere), and end with this object or this process.

    Arguments:
        energy: of configurations with shape (n, D).
        num_workers: k.
    """

    def __init__(self, energy: Energy, num_workers: int) -> None:
        self.energy, self.num_workers = energy, num_workers
        self._forget()

    def evaluate(self, x: np.ndarray, with_forces: bool) -> Evaluated:
        """As `Energy.evaluate`.

        Raises:
            InputError: if the energy cannot be sent to a process, or one has died.
            Exception: what the energy raises.
        """
        if self._owner != os.getpid():
            self._start()
        parts = np.array_split(x, min(self.num_workers, len(x)))
        try:
            for part, connection in zip(parts, self._connections, strict=False):
                self._send(connection, (part, with_forces))
            answers = [self._receive(k) for k in range(len(parts))]
        except BaseException:  # an answer that nobody waits for would be taken for the next one
            self.close()
            raise
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        forces = np.concatenate([answer.forces for answer in answers]) if with_forces else None
        failure = next((answer.failure for answer in answers if answer.failure is not None), None)
        return Evaluated(np.concatenate([answer.energy for answer in answers]), forces, failure)

    def close(self) -> None:
        """End the processes; the next evaluation starts others."""
        self._end()
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"energy": self.energy, "num_workers": self.num_workers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _forget(self) -> None:
        self._owner: int | None = None
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._end = lambda: None

    def _start(self) -> None:
        self._forget()  # in a process that was forked from the owner, these are the owner's
        context = multiprocessing.get_context(multiprocessing.get_start_method(allow_none=True) or USUAL_START)
        if context.get_start_method() != "fork":
            _check_sendable(self.energy)
        self._owner = os.getpid()
        self._end = weakref.finalize(self, _end, self._owner, self._processes, self._connections)
        for _ in range(self.num_workers):
            ours, theirs = context.Pipe()
            inherited = [*self._connections, ours] if context.get_start_method() == "fork" else []
            process = context.Process(target=_work, args=(self.energy, theirs, inherited), daemon=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
                process.start()
            theirs.close()  # before the next is forked: when this one dies, nobody else holds its end
            self._processes.append(process)
            self._connections.append(ours)

    def _send(self, connection: Connection, message: Any) -> None:
        try:
            connection.send(message)
        except OSError:
            pass  # it has died, as the answer will say

    def _receive(self, k: int) -> Any:
        try:
            return self._connections[k].recv()
        except (EOFError, OSError):
            process = self._processes[k]
            process.join(SECONDS_TO_END)
            code = process.exitcode
            how = (
                f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
            )
            raise InputError(
                f"a worker process of the energy has died {how}: what it wrote last is above. Evaluate a few "
                "configurations with workers=0 to see why, or take fewer workers if memory was short."
            ) from None


def _work(energy: Energy, connection: Connection, inherited: list[Connection]) -> None:
    """What a worker does until nobody is at the other end."""
    for end in inherited:  # the owner's: while one is open here, no worker would learn that the owner has gone
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner hears of it, and ends this
    torch.set_num_threads(1)  # pools of threads do not survive a fork
    while True:
        try:
            x, with_forces = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Evaluated | Exception = energy.evaluate(x, with_forces)
            if answer.failure is not None:
                answer = Evaluated(answer.energy, answer.forces, _sendable(answer.failure))
        except Exception as error:
            answer = _sendable(error)
        connection.send(answer)


def _end(owner: int, processes: list[BaseProcess], connections: list[Connection]) -> None:
    if os.getpid() != owner:
        return
    for connection in connections:
        connection.close()
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(SECONDS_TO_END)


def _check_sendable(energy: Energy) -> None:
    try:
        pickle.dumps(energy)
    except Exception as error:
        raise InputError(
            "workers need an energy that can be pickled: functions at the top of a file, and objects of classes there, "
            f"no lambdas and no functions inside of others. The error is {type(error).__name__}: {error}"
        ) from error


def _sendable(error: Exception) -> Exception:
    """An error, or one that says the same where its class cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
