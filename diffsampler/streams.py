"""Noise by purpose: what one seed feeds must not meet itself again under another name."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

STREAMS = {
    "train": 0,
    "validate": 1,
    "test": 2,
    "predict": 3,
    "metrics": 4,
    "search": 5,
    "decide": 6,
    "calibrate": 7,
    "calibrate data": 8,
    "calibrate fit": 9,
}


def new_generator(
    stream: str, seed: int, rank: int = 0, step: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator of its own for each purpose, seed, rank and step.

    Arguments:
        stream: the purpose, one of `STREAMS`.
        seed: the user's.
        rank: of the process; ranks that shared noise would make every interval too narrow.
        step: of training.
        device: of the noise.
    """
    entropy = (seed, rank, STREAMS[stream], step)
    state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device).manual_seed(state)


@contextmanager
def fixed_weights() -> Iterator[None]:
    """Networks made in this context begin the same, wherever torch's global generators are, and leave these alone."""
    device = torch.get_default_device()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # Not torch.manual_seed, which would reseed all other devices too.
        torch.default_generator.manual_seed(0)
        if device.type == "cuda":
            torch.cuda.manual_seed(0)
        yield
