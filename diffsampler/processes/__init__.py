"""Processes: the forward and backward kernels that a sampler walks by, one file each."""

from diffsampler.processes.base import Process
from diffsampler.processes.pinned_brownian import PinnedBrownian

__all__ = ["PinnedBrownian", "Process"]
