"""Smooth maps from the reals onto intervals, with the place and the slope at 0 that one asks for."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


class Positive(nn.Module):
    """x = loc exp(scale z / loc), positive: near z = 0 it is loc + scale z.

    Arguments:
        loc: positive, with shape (D).
        scale: positive, with shape (D).
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("loc", loc.double())
        self.register_buffer("scale", scale.double())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Positive":
        # Follows the sampler to its device, not to its dtype.
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            self._buffers[name] = buffer.double()
        return self

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x and the log of each slope dx/dz, both with shape (*, D)."""
        loc, scale = self.loc.to(z.dtype), self.scale.to(z.dtype)
        exponent = scale / loc * z
        return loc * exponent.exp(), scale.log() + exponent

    def inverse(self, x: Tensor) -> Tensor:
        """z, with shape (*, D)."""
        loc, scale = self.loc.to(x.dtype), self.scale.to(x.dtype)
        return (x / loc).log() * (loc / scale)


class Between(Positive):
    """x = low + (high - low) sigmoid(a + c z), with a and c such that near z = 0 it is loc + scale z.

    Arguments:
        loc: with shape (D).
        scale: positive, with shape (D).
        low: with shape (D), below loc.
        high: with shape (D), above loc.
    """

    def __init__(self, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__(loc, scale)
        self.register_buffer("low", low.double())
        self.register_buffer("high", high.double())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        low, size, start, slope = (part.to(z.dtype) for part in self._constants())
        y = start + slope * z
        return low + size * y.sigmoid(), (size * slope).log() + logsigmoid(y) + logsigmoid(-y)

    def inverse(self, x: Tensor) -> Tensor:
        """z, with shape (*, D); NaN where x is outside."""
        low, size, start, slope = (part.to(x.dtype) for part in self._constants())
        return (((x - low) / (low + size - x)).log() - start) / slope

    def middle_turn(self, x: Tensor) -> Tensor:
        """Angles x within half a turn of the middle of their interval, with shape (*, D)."""
        middle = (0.5 * (self.low + self.high)).to(x.dtype)
        return middle + torch.remainder(x - middle + math.pi, 2 * math.pi) - math.pi

    def _constants(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = self.high - self.low
        share = (self.loc - self.low) / size
        return self.low, size, share.logit(), self.scale / (size * share * (1 - share))
