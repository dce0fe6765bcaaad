"""What all wrappers around a drift share."""

from collections.abc import Callable

from diffsampler.errors import InputError
from diffsampler.networks.drift import Drift
from diffsampler.processes import Process

__all__ = ["DriftWrapper"]


class DriftWrapper(Drift):
    """A drift that adds to another one, in whose place it stands.

    Arguments:
        dim: the dimension D.
        network: makes the wrapped drift from the dimension; it must return a control alone, unless `wraps_widths`.

    Attributes:
        wraps_widths: whether the wrapped drift may learn widths too.
    """

    wraps_widths: bool = False

    def __init__(self, dim: int, network: Callable[[int], Drift]) -> None:
        super().__init__()
        self.network = network(dim)
        if self.network.learns_width and not self.wraps_widths:
            raise InputError(
                f"network of {type(self).__name__} must return a control alone, got {type(self.network).__name__}: "
                "wrap the other way round."
            )

    @property
    def uses_score(self) -> bool:
        return self.network.uses_score

    @property
    def periodic(self) -> bool:
        return self.network.periodic

    def adapt(self, process: Process) -> None:
        self.network.adapt(process)
