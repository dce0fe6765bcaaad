"""Maps of free numbers onto values within a constraint, with their Jacobians."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform
from torch.nn.functional import logsigmoid

from diffsampler.models.transforms import BY_VECTOR
from diffsampler.support.bijections import Above, Below, Everywhere, Piece, Support, spacing


class Map(ABC):
    """From R^d, in the last dimension, onto values of one shape.

    Attributes:
        num_free: d.
    """

    num_free: int

    @abstractmethod
    def forward(self, free: Tensor) -> tuple[Tensor, Tensor]:
        """Values, with shape (*, shape), and the log of the Jacobian, with shape (*)."""

    @abstractmethod
    def inverse(self, value: Tensor) -> Tensor:
        """The free numbers, with shape (*, d), of values with shape (*, shape)."""

    def limits(self) -> tuple[Tensor, Tensor]:
        """Between which free numbers values move as these do, float64, each with shape (d)."""
        return Everywhere().limits(torch.zeros(self.num_free, dtype=torch.float64, device="cpu"))


class Entrywise(Map):
    """Each number by itself.

    Arguments:
        piece: for all of them, one after the other.
        shape: of values.
    """

    def __init__(self, piece: Piece, shape: tuple[int, ...]) -> None:
        self.piece, self.shape, self.num_free = piece, shape, math.prod(shape)

    def forward(self, free: Tensor) -> tuple[Tensor, Tensor]:
        value, log_det = self.piece.forward(free)
        return value.reshape((*free.shape[:-1], *self.shape)), log_det

    def inverse(self, value: Tensor) -> Tensor:
        return self.piece.inverse(value.reshape(*value.shape[: value.ndim - len(self.shape)], self.num_free))

    def limits(self) -> tuple[Tensor, Tensor]:
        return self.piece.limits(torch.zeros(self.num_free, dtype=torch.float64, device="cpu"))


class Jointly(Map):
    """By a transform of torch.distributions, which may change the shape.

    Arguments:
        transform: from R^d, perhaps of many at once.
        shape: of values.

    Raises:
        ValueError: if it has no values of this shape.
    """

    def __init__(self, transform: Transform, shape: tuple[int, ...]) -> None:
        self.transform, self.shape = transform, shape
        self.free_shape = tuple(transform.inverse_shape(torch.Size(shape)))
        self.num_free = math.prod(self.free_shape)

    def forward(self, free: Tensor) -> tuple[Tensor, Tensor]:
        batch = free.shape[:-1]
        free = free.reshape(*batch, *self.free_shape)
        value = self.transform(free)
        log_det = self.transform.log_abs_det_jacobian(free, value)
        return value, log_det.flatten(len(batch)).sum(-1) if log_det.ndim > len(batch) else log_det

    def inverse(self, value: Tensor) -> Tensor:
        return self.transform.inv(value).reshape(*value.shape[: value.ndim - len(self.shape)], self.num_free)


class Logistic(Piece):
    """x = low + (high - low) / (1 + exp(-y)), as Stan and torch have it."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.bounds(y)
        from_low, from_high = (high - low) * y.sigmoid(), (high - low) * (-y).sigmoid()
        x = torch.where(y < 0, low + from_low, high - from_high)
        return self.inside(x), ((high - low).log() + logsigmoid(y) + logsigmoid(-y)).sum(-1)

    def inverse(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        x = self.inside(x)
        return (x - low).log() - (high - x).log()

    def inside(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        return x.maximum(low.nextafter(high)).minimum(high.nextafter(low))

    def limits(self, y: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.bounds(y)
        return (spacing(low, 1) / (high - low)).log(), -(spacing(high, -1) / (high - low)).log()


class Several(Piece):
    """Some numbers by one piece, some by another."""

    def __init__(self, pieces: list[tuple[list[int], Piece]]) -> None:
        super().__init__()
        self.support = Support(pieces, [])

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.support.forward(y)

    def inverse(self, x: Tensor) -> Tensor:
        return self.support.inverse(x)

    def limits(self, y: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.empty_like(y), torch.empty_like(y)
        for columns, piece in self.support.pieces:
            low[columns], high[columns] = piece.limits(y[columns])
        return low, high


# By whether there is a lower and an upper end.
PIECES = {(False, False): Everywhere, (True, False): Above, (False, True): Below, (True, True): Logistic}


def map_onto(constraint: Constraint, shape: tuple[int, ...]) -> Map:
    """The map of R^d onto values of a shape within a constraint.

    Raises:
        NotImplementedError: if torch knows none.
        ValueError: if it has no values of this shape.
    """
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    kind = type(constraint)
    if kind is type(constraints.real):
        return Entrywise(Everywhere(), shape)
    if kind in (constraints.greater_than, constraints.greater_than_eq):
        return Entrywise(Above(_flat(constraint.lower_bound, shape)), shape)
    if kind is constraints.less_than:
        return Entrywise(Below(_flat(constraint.upper_bound, shape)), shape)
    if kind in (constraints.interval, constraints.half_open_interval):
        return Entrywise(_between(_flat(constraint.lower_bound, shape), _flat(constraint.upper_bound, shape)), shape)
    return Jointly(BY_VECTOR[kind]() if kind in BY_VECTOR else biject_to(constraint), shape)


def _between(low: Tensor, high: Tensor) -> Piece:
    """The map onto intervals, some of which may have one end or none."""
    if low.isfinite().all() and high.isfinite().all():
        return Logistic(low, high)
    by_ends: dict[tuple[bool, bool], list[int]] = {}
    for k, ends in enumerate(zip(low.isfinite().tolist(), high.isfinite().tolist(), strict=True)):
        by_ends.setdefault(ends, []).append(k)
    pieces = []
    for (has_low, has_high), columns in by_ends.items():
        bounds = [end[columns] for end, is_known in ((low, has_low), (high, has_high)) if is_known]
        pieces.append((columns, PIECES[has_low, has_high](*bounds)))
    return pieces[0][1] if len(pieces) == 1 else Several(pieces)


def _flat(bound: float | Tensor, shape: tuple[int, ...]) -> Tensor:
    """A bound for each of the numbers, float64."""
    return torch.as_tensor(bound, dtype=torch.float64, device="cpu").detach().expand(shape).reshape(-1).clone()
