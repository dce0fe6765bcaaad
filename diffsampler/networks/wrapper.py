"""What all wrappers around a control share."""

from collections.abc import Callable

from diffsampler.errors import InputError
from diffsampler.networks.control import Control
from diffsampler.parts import make_part
from diffsampler.processes import Process, as_process


class ControlWrapper(Control):
    """A control that adds to another one, in whose place it stands.

    Arguments:
        process: that it steers, or D.
        network: makes the wrapped control from the process; it must return a control alone, unless `wraps_widths`.

    Attributes:
        wraps_widths: whether the wrapped control may learn widths too.
    """

    wraps_widths: bool = False

    def __init__(self, process: Process | int, network: Callable[[Process], Control]) -> None:
        super().__init__()
        process = as_process(process)
        self.space = process.space
        self.network = make_part("network", network, Control, process)
        if self.network.learns_width and not self.wraps_widths:
            raise InputError(
                f"network of {type(self).__name__} must return a control alone, got {type(self.network).__name__}: "
                "wrap the other way round."
            )

    @property
    def uses_score(self) -> bool:
        return self.network.uses_score
