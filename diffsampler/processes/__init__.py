"""Processes: the forward and backward kernels that a sampler walks by, one file each."""

from diffsampler.processes.annealed_langevin import AnnealedLangevin
from diffsampler.processes.base import Process
from diffsampler.processes.bridge import Bridge
from diffsampler.processes.conditional import Conditional
from diffsampler.processes.of_space import as_process
from diffsampler.processes.pinned_brownian import PinnedBrownian
from diffsampler.processes.product import ProductProcess
from diffsampler.processes.schedules import CosineSchedule, LinearSchedule, NoiseSchedule
from diffsampler.processes.torus import Torus
from diffsampler.processes.underdamped import Underdamped
from diffsampler.processes.variance_exploding import VarianceExploding
from diffsampler.processes.variance_preserving import VariancePreserving

__all__ = [
    "AnnealedLangevin",
    "Bridge",
    "Conditional",
    "CosineSchedule",
    "LinearSchedule",
    "NoiseSchedule",
    "PinnedBrownian",
    "Process",
    "ProductProcess",
    "Torus",
    "Underdamped",
    "VarianceExploding",
    "VariancePreserving",
    "as_process",
]
