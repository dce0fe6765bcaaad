"""Where a density is not zero, as a map from all of R^D: what `Target.support` declares.

x = T(y) has coordinates of x bounded where the support is, and y goes anywhere. The density of y carries log |det
dx/dy|, so log Z is the same. Half-lines are mapped by exp, as `torch.distributions.biject_to` does; intervals by the
normal distribution function, since then a density that is flat on a box is exactly normal in y, and what rises or falls
as a power towards an edge nearly so.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from diffsampler.errors import InputError
from diffsampler.kernels import HALF_LOG_TWO_PI

if TYPE_CHECKING:
    from diffsampler.target import Target

__all__ = ["Support", "ordered_vector", "support_of"]

BELOW = (constraints.greater_than, constraints.greater_than_eq)
WITHIN = (constraints.interval, constraints.half_open_interval)


class _OrderedVector(Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value.diff(dim=-1) > 0).all(-1)


class _OrderedTransform(Transform):
    """x_0 = y_0, x_i = x_{i-1} + exp(y_i)."""

    domain = constraints.real_vector
    codomain = _OrderedVector()
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., :1], x[..., 1:].exp()], -1).cumsum(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.cat([y[..., :1], y.diff(dim=-1).clamp(min=torch.finfo(y.dtype).tiny).log()], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x[..., 1:].sum(-1)


ordered_vector = _OrderedVector()
"""x_0 < x_1 < ... : the locations of a mixture, say, whose labels may else be exchanged."""
biject_to.register(ordered_vector, lambda _: _OrderedTransform())


class _Piece(ABC):
    """The map of some coordinates, with bounds in float64 that follow y to its device."""

    def __init__(self, *bounds: Tensor) -> None:
        self._bounds = bounds
        self._moved: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def bounds(self, like: Tensor) -> tuple[Tensor, ...]:
        """In dtype and on the device of a tensor; copied there once, which a CUDA graph needs."""
        key = like.device, like.dtype
        if key not in self._moved:
            self._moved[key] = tuple(bound.to(like) for bound in self._bounds)
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

    def contains(self, x: Tensor) -> Tensor:
        """Whether points are within, with shape (*)."""
        return (self.inside(x) == x).all(-1)


class _Everywhere(_Piece):
    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y, torch.zeros_like(y[..., 0])

    def inverse(self, x: Tensor) -> Tensor:
        return x


class _Above(_Piece):
    """x = low + exp(y)."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        (low,) = self.bounds(y)
        return self.inside(low + y.exp()), y.sum(-1)

    def inverse(self, x: Tensor) -> Tensor:
        (low,) = self.bounds(x)
        return (self.inside(x) - low).log()

    def inside(self, x: Tensor) -> Tensor:
        (low,) = self.bounds(x)
        return x.maximum(low.nextafter(torch.full_like(low, torch.inf)))


class _Below(_Piece):
    """x = high - exp(y)."""

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        (high,) = self.bounds(y)
        return self.inside(high - y.exp()), y.sum(-1)

    def inverse(self, x: Tensor) -> Tensor:
        (high,) = self.bounds(x)
        return (high - self.inside(x)).log()

    def inside(self, x: Tensor) -> Tensor:
        (high,) = self.bounds(x)
        return x.minimum(high.nextafter(torch.full_like(high, -torch.inf)))


class _Between(_Piece):
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
        y = torch.special.ndtri(from_low.minimum(from_high))
        return torch.where(from_low < from_high, y, -y)

    def inside(self, x: Tensor) -> Tensor:
        low, high = self.bounds(x)
        return x.maximum(low.nextafter(high)).minimum(high.nextafter(low))


class _Transformed(_Piece):
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

    def __init__(self, pieces: Sequence[tuple[list[int], _Piece]], ends: Sequence[tuple[float, float]]) -> None:
        self.pieces = list(pieces)
        self.edges: list[tuple[int, float, int, bool]] = []
        for column, (low, high) in enumerate(ends):
            if math.isfinite(low):
                self.edges.append((column, low, 1, math.isinf(high)))
            if math.isfinite(high):
                self.edges.append((column, high, -1, math.isinf(low)))
        order = [column for columns, _ in pieces for column in columns]
        self._back = sorted(range(len(order)), key=order.__getitem__)
        self._in_order = order == sorted(order)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dy|, with shapes (*, D) and (*), for y with shape (*, D)."""
        parts = [piece.forward(self._columns(y, columns)) for columns, piece in self.pieces]
        return self._joined([x for x, _ in parts]), sum(log_det for _, log_det in parts)

    def inverse(self, x: Tensor) -> Tensor:
        """y, with shape (*, D), for x with shape (*, D)."""
        return self._joined([piece.inverse(self._columns(x, columns)) for columns, piece in self.pieces])

    def inside(self, x: Tensor) -> Tensor:
        """x with what rounding has moved onto an edge just within it, with shape (*, D)."""
        return self._joined([piece.inside(self._columns(x, columns)) for columns, piece in self.pieces])

    def contains(self, x: Tensor) -> Tensor:
        """Whether points x, with shape (*, D), are within, with shape (*)."""
        found = [piece.contains(self._columns(x, columns)) for columns, piece in self.pieces]
        return torch.stack(found).all(0)

    def score_of(self, y: Tensor, score: Tensor) -> Tensor:
        """The gradient in y of a density of which `score` is the gradient in x, both with shape (*, D)."""
        with torch.inference_mode(False), torch.enable_grad():
            y = y.detach().clone().requires_grad_()
            x, log_det = self.forward(y)
            (found,) = torch.autograd.grad((x * score.detach().clone()).sum() + log_det.sum(), y)
        return found

    def _columns(self, x: Tensor, columns: list[int]) -> Tensor:
        if len(self.pieces) == 1:
            return x
        if columns == list(range(columns[0], columns[-1] + 1)):
            return x[..., columns[0] : columns[-1] + 1]
        return torch.stack([x[..., column] for column in columns], -1)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return joined if self._in_order else torch.stack([joined[..., column] for column in self._back], -1)


def support_of(target: "Target") -> Support | None:
    """What `target.support` declares; None where that is nothing, or all of R^D.

    Raises:
        InputError: if it is no support of D coordinates, or one that no map of R^D is known for.
    """
    given, dim = target.support, target.dim
    if given is None:
        return None
    refusal = _Refusal(type(target).__name__, given, dim)
    low, high = torch.full((dim,), -torch.inf, dtype=torch.float64), torch.full((dim,), torch.inf, dtype=torch.float64)
    joint: list[tuple[list[int], _Piece]] = []
    if isinstance(given, Constraint):
        _read(given, list(range(dim)), low, high, joint, refusal)
    elif isinstance(given, tuple | list) and len(given) == 2:
        _set(low, list(range(dim)), given[0], refusal)
        _set(high, list(range(dim)), given[1], refusal)
    else:
        raise refusal.because()
    if not (low < high).all() or (low == torch.inf).any() or (high == -torch.inf).any():
        raise refusal.because("low must be below high in every coordinate")
    taken = {column for columns, _ in joint for column in columns}
    kinds = {
        (False, False): lambda low, high: _Everywhere(),
        (True, False): lambda low, high: _Above(low),
        (False, True): lambda low, high: _Below(high),
        (True, True): _Between,
    }
    pieces = list(joint)
    ends = list(zip(low.tolist(), high.tolist(), strict=True))
    for kind, make in kinds.items():
        columns = [column for column in range(dim) if tuple(map(math.isfinite, ends[column])) == kind]
        columns = [column for column in columns if column not in taken]
        if columns:
            pieces.append((columns, make(low[columns], high[columns])))
    return None if all(isinstance(piece, _Everywhere) for _, piece in pieces) else Support(pieces, ends)


class _Refusal:
    """The sentence that says what was given, and what is accepted."""

    def __init__(self, name: str, given: Any, dim: int) -> None:
        self.name, self.dim = name, dim
        self.given = f"the class {given.__name__}" if isinstance(given, type) else " ".join(f"{given!r}".split())[:80]

    def because(self, reason: str = "") -> InputError:
        """The error to raise."""
        return InputError(
            f"support of {self.name} must be None, a pair (low, high) of numbers or of {self.dim} numbers each, or a "
            "constraint of torch.distributions.constraints that keeps the dimension, such as positive or "
            f"interval(0, 1), got {self.given}{': ' * bool(reason)}{reason}."
        )


def _read(
    constraint: Constraint,
    columns: list[int],
    low: Tensor,
    high: Tensor,
    joint: list[tuple[list[int], _Piece]],
    refusal: _Refusal,
) -> None:
    """Write bounds of these coordinates into low and high, and append what is no box."""
    if isinstance(constraint, constraints.independent):
        _read(constraint.base_constraint, columns, low, high, joint, refusal)
    elif isinstance(constraint, constraints.cat | constraints.stack):
        lengths = constraint.lengths if isinstance(constraint, constraints.cat) else [1] * len(constraint.cseq)
        if constraint.dim not in (0, -1) or sum(lengths) != len(columns):
            raise refusal.because(f"it is of {sum(lengths)} coordinates along dim {constraint.dim}, not of the last")
        for part, mine in zip(constraint.cseq, torch.tensor(columns).split(lengths), strict=True):
            _read(part, mine.tolist(), low, high, joint, refusal)
    elif type(constraint) in BELOW:
        _set(low, columns, constraint.lower_bound, refusal)
    elif type(constraint) is constraints.less_than:
        _set(high, columns, constraint.upper_bound, refusal)
    elif type(constraint) in WITHIN:
        _set(low, columns, constraint.lower_bound, refusal)
        _set(high, columns, constraint.upper_bound, refusal)
    elif type(constraint) is not type(constraints.real):
        joint.append((columns, _Transformed(_bijection(constraint, len(columns), refusal))))


def _bijection(constraint: Constraint, n: int, refusal: _Refusal) -> Transform:
    if isinstance(constraint, type(constraints.simplex)):
        raise refusal.because(
            "a simplex has one dimension less than coordinates; write the density of the first dim - 1, the last being "
            "1 minus their sum, and return -inf where that is negative"
        )
    try:
        transform = biject_to(constraint)
        keeps = transform.domain.event_dim < 2 and transform.forward_shape((n,)) == (n,)
    except (NotImplementedError, ValueError) as error:
        raise refusal.because("torch knows no bijection for it") from error
    if not keeps:
        raise refusal.because("its bijection changes the dimension")
    return transform


def _set(bounds: Tensor, columns: list[int], value: Any, refusal: _Refusal) -> None:
    try:
        value = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
        bounds[columns] = value.expand(len(columns))
    except (TypeError, ValueError, RuntimeError) as error:
        raise refusal.because() from error
