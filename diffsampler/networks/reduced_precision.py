"""A control network in bfloat16, inside densities in full precision."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.networks.control import Control, FourierMLP
from diffsampler.networks.wrapper import ControlWrapper
from diffsampler.processes import Process


class ReducedPrecision(ControlWrapper):
    """The wrapped control with its matrix products in bfloat16, and its control in the dtype of states: for a GPU.

    States, kernels, the target and log-weights stay as they are. A rollout weighs the very control that it has
    walked by, so that its log-weights are as exact as without. Where a path is evaluated again, as in training, its
    control is rounded anew: log w then differs, by 0.001 nats (0.005 at most) on the funnel with T = 100.

    States in float64 are not rounded: there it changes nothing.

    Arguments:
        process: that it steers, or D.
        network: makes the wrapped control from the process; inside `LangevinControl`, say, so that scores stay exact.
    """

    wraps_widths = True

    def __init__(self, process: Process | int, network: Callable[[Process], Control] = FourierMLP) -> None:
        super().__init__(process, network)

    @property
    def learns_width(self) -> bool:
        return self.network.learns_width

    def embed(self, t: Tensor) -> Tensor:
        return self.network.embed(t)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            control = self.network(embedding, x, score)
        return control.to(x.dtype)
