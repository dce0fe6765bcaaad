"""What a training step needs at the least, and what the machine can do."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Ceilings", "Need", "measure_ceilings", "measure_need"]


class Ceilings(NamedTuple):
    """What this machine reaches: matrix products in FLOP/s, and bytes/s of a copy (read and written)."""

    flops: float
    bytes: float


class Need(NamedTuple):
    """FLOPs of the matrix products of a step, and the bytes that its backward pass needs of its forward pass.

    These are written once and read once; everything else could in principle stay in registers and cache.
    """

    flops: int
    bytes: int

    def seconds(self, ceilings: Ceilings) -> float:
        """The least that a step takes."""
        return self.flops / ceilings.flops + 2 * self.bytes / ceilings.bytes


def measure_need(step: Callable[[], None]) -> Need:
    """Count the FLOPs and the kept bytes of one call."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return Need(counter.get_total_flops(), sum(kept.values()))


def measure_ceilings(device: torch.device, rows: int = 6400, width: int = 64, repeats: int = 50) -> Ceilings:
    """Of products (rows, width) x (width, width), as the networks make them, and of a copy that no cache holds."""
    states, weight = torch.randn(rows, width, device=device), torch.randn(width, width, device=device)
    large = torch.randn(32 << 20, device=device)
    other = torch.empty_like(large)
    product = _fastest(lambda: states @ weight, repeats, device)
    copied = _fastest(lambda: other.copy_(large), max(5, repeats // 10), device)
    return Ceilings(2 * rows * width**2 / product, 2 * large.nbytes / copied)


def now(device: torch.device) -> float:
    """Seconds; on a GPU once it has done all that was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _fastest(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The least seconds of a call: a ceiling is what is possible."""
    seconds = []
    for _ in range(repeats):
        start = now(device)
        call()
        seconds.append(now(device) - start)
    return min(seconds)
