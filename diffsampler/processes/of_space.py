"""A process for who has none."""

from diffsampler.processes.base import Process
from diffsampler.processes.pinned_brownian import PinnedBrownian
from diffsampler.processes.product import ProductProcess
from diffsampler.processes.torus import Torus
from diffsampler.spaces import Space, as_space


def as_process(process: Process | Space | int) -> Process:
    """A process; a space stands for the usual one there, and a number for R^D of that dimension."""
    if isinstance(process, Process):
        return process
    space = as_space(process)
    if space.is_euclidean:
        return PinnedBrownian(space)
    return Torus(space) if space.is_periodic else ProductProcess(space)
