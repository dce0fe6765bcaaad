"""A process for who has none."""

from diffsampler.processes.base import Process
from diffsampler.processes.pinned_brownian import PinnedBrownian
from diffsampler.processes.torus import Torus
from diffsampler.spaces import Space, as_space


def as_process(process: Process | Space | int) -> Process:
    """A process; a space stands for Brownian motion of unit scale there, and a number for R^D of that dimension."""
    if isinstance(process, Process):
        return process
    space = as_space(process)
    return PinnedBrownian(space) if space.is_euclidean else Torus(space)
