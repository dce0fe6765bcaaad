"""Maps from all of R^D onto a part of it, that keep the dimension.

x = T(y) has coordinates of x bounded where the part is, and y goes anywhere. Half-lines are mapped by exp, as
`torch.distributions.biject_to` does; intervals by the normal distribution function, since then a density that is flat
on a box is exactly normal in y, and what rises or falls as a power towards an edge nearly so.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from diffsampler.spaces.kernels import HALF_LOG_TWO_PI


def spacing(x: Tensor, sign: int) -> Tensor:
    """How far the next number is, above or below; at 0, the smallest of full precision."""
    return (x.nextafter(torch.full_like(x, sign * torch.inf)) - x).abs().clamp(min=torch.finfo(x.dtype).tiny)


def score_through(forward: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, score: Tensor) -> Tensor:
    """The gradient in y, where forward gives x and log |det dx/dy|, of a density of which `score` is that in x."""
    with torch.inference_mode(False), torch.enable_grad():
        y = y.detach().clone().requires_grad_()
        x, log_det = forward(y)
        (found,) = torch.autograd.grad((x * score.detach().clone()).sum() + log_det.sum(), y)
    return found


class Piece(ABC):
    """The map of some coordinates, with bounds in float64 that follow y to its device."""

    def __init__(self, *bounds: Tensor) -> None:
        self._bounds = bounds
        self._moved: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def bounds(self, like: Tensor) -> tuple[Tensor, ...]:
        """In dtype and on the device of a tensor; copied there once, which a CUDA graph needs."""
        key = like.device, like.dtype
        if key not in self._moved:
            with torch.inference_mode(False):  # gradients pass here, wherever the first call comes from
                self._moved[key] = tuple(bound.to(like).clone() for bound in self._bounds)
        return self._moved[key]

    @abstractmethod
    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dy|, with shapes (*, d) and (*)."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """y, with shape (*, d)."""

    def inside(self, x: Tensor) -> Tensor:
        """x, unless rounding has moved it onto an edge: then the nearest number within."""
        return x

    def limits(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Between which y, for every coordinate of one with shape (d), x moves as y does: beyond, numbers end."""
        return torch.full_like(y, -torch.inf), torch.full_like(y, torch.inf)

    def contains(self, x: Tensor) -> Tensor:
        """Whether points are within, with shape (*)."""
        return (self.inside(x) == x).all(-1)


class Everywhere(Piece):
    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y, torch.zeros_like(y[..., 0])

    def inverse(self, x: Tensor) -> Tensor:
        return x


class Above(Piece):
    """x = low + exp(y)."""

    sign = 1

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        (bound,) = self.bounds(y)
        return self.inside(bound + self.sign * y.exp()), y.sum(-1)

    def inverse(self, x: Tensor) -> Tensor:
        (bound,) = self.bounds(x)
        return (self.sign * (self.inside(x) - bound)).log()

    def inside(self, x: Tensor) -> Tensor:
        (bound,) = self.bounds(x)
        nearest = bound.nextafter(torch.full_like(bound, self.sign * torch.inf))
        return x.maximum(nearest) if self.sign > 0 else x.minimum(nearest)

    def limits(self, y: Tensor) -> tuple[Tensor, Tensor]:
        (bound,) = self.bounds(y)
        return spacing(bound, self.sign).log(), torch.full_like(bound, torch.finfo(y.dtype).max).log()


class Below(Above):
    """x = high - exp(y)."""

    sign = -1


class Between(Piece):
    """x = low + (high - low) Phi(y)."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.bounds(y)
        share = 0.5 * torch.erfc(y.abs() * math.sqrt(0.5))  # of the way from the nearer edge, to the last digit
        x = torch.where(y < 0, low + (high - low) * share, high - (high - low) * share)
        return self.inside(x), ((high - low).log() - 0.5 * y.square() - HALF_LOG_TWO_PI).sum(-1)

    def inverse(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        x = self.inside(x)
        from_low, from_high = (x - low) / (high - low), (high - x) / (high - low)
        # The least number within, in units of a wide interval, may round to nothing.
        y = torch.special.ndtri(from_low.minimum(from_high).clamp(min=torch.finfo(x.dtype).tiny))
        return torch.where(from_low < from_high, y, -y)

    def inside(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        return x.maximum(low.nextafter(high)).minimum(high.nextafter(low))


class Transformed(Piece):
    """A bijection of torch.distributions."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x = self.transform(y)
        log_det = self.transform.log_abs_det_jacobian(y, x)
        return x, log_det if log_det.ndim < y.ndim else log_det.sum(-1)

    def inverse(self, x: Tensor) -> Tensor:
        return self.transform.inv(x)

    def contains(self, x: Tensor) -> Tensor:
        found = self.transform.codomain.check(x)
        return found if found.ndim < x.ndim else found.all(-1)


class Support:
    """The map x = T(y) from R^D onto a support.

    Arguments:
        pieces: the coordinates that each is of, and their map; together all of 0..D-1.
        ends: lower and upper bounds of each coordinate, where it has any of its own.

    Attributes:
        edges: bounds, as (coordinate, bound, +1 for a lower and -1 for an upper one, whether the other is infinite).
    """

    def __init__(self, pieces: Sequence[tuple[list[int], Piece]], ends: Sequence[tuple[float, float]]) -> None:
        self.pieces = list(pieces)
        self.edges: list[tuple[int, float, int, bool]] = []
        for column, (low, high) in enumerate(ends):
            for bound, sign, other in ((low, 1, high), (high, -1, low)):
                if math.isfinite(bound):
                    self.edges.append((column, bound, sign, math.isinf(other)))
        order = [column for columns, _ in pieces for column in columns]
        self._back = sorted(range(len(order)), key=order.__getitem__)
        self._in_order = order == sorted(order)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dy|, with shapes (*, D) and (*), for y with shape (*, D)."""
        parts, log_dets = zip(*(piece.forward(part) for piece, part in self._parts(y)), strict=True)
        return self._joined(parts), sum(log_dets)

    def inverse(self, x: Tensor) -> Tensor:
        """y, with shape (*, D), for x with shape (*, D)."""
        return self._joined([piece.inverse(part) for piece, part in self._parts(x)])

    def inside(self, x: Tensor) -> Tensor:
        """x with what rounding has moved onto an edge just within it, with shape (*, D)."""
        return self._joined([piece.inside(part) for piece, part in self._parts(x)])

    def contains(self, x: Tensor) -> Tensor:
        """Whether points x, with shape (*, D), are within, with shape (*)."""
        return torch.stack([piece.contains(part) for piece, part in self._parts(x)]).all(0)

    def _parts(self, x: Tensor) -> Iterator[tuple[Piece, Tensor]]:
        return ((piece, self._columns(x, columns)) for columns, piece in self.pieces)

    def _columns(self, x: Tensor, columns: list[int]) -> Tensor:
        if len(self.pieces) == 1:
            return x
        if columns == list(range(columns[0], columns[-1] + 1)):
            return x[..., columns[0] : columns[-1] + 1]
        return torch.stack([x[..., column] for column in columns], -1)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return joined if self._in_order else torch.stack([joined[..., column] for column in self._back], -1)
