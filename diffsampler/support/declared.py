"""Where a density is not zero, as users declare it by `Target.support`: read, checked, and made a map from R^D.

The density of y, where x = T(y), carries log |det dx/dy|, so log Z is the same.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from diffsampler.errors import InputError
from diffsampler.support.bijections import Above, Below, Between, Everywhere, Piece, Support, Transformed

__all__ = ["ordered_vector", "read_support"]

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


def read_support(given: Any, dim: int, name: str) -> Support | None:
    """What a declaration says; None where that is nothing, or all of R^D.

    Arguments:
        given: as `Target.support`.
        dim: the dimension D.
        name: of the user's class.

    Raises:
        InputError: if it is no support of D coordinates, or one that no map of R^D is known for.
    """
    if given is None:
        return None
    refusal = _Refusal(name, given, dim)
    low, high = torch.full((dim,), -torch.inf, dtype=torch.float64), torch.full((dim,), torch.inf, dtype=torch.float64)
    joint: list[tuple[list[int], Piece]] = []
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
        (False, False): lambda low, high: Everywhere(),
        (True, False): lambda low, high: Above(low),
        (False, True): lambda low, high: Below(high),
        (True, True): Between,
    }
    pieces = list(joint)
    ends = list(zip(low.tolist(), high.tolist(), strict=True))
    for kind, make in kinds.items():
        columns = [column for column in range(dim) if tuple(map(math.isfinite, ends[column])) == kind]
        columns = [column for column in columns if column not in taken]
        if columns:
            pieces.append((columns, make(low[columns], high[columns])))
    return None if all(isinstance(piece, Everywhere) for _, piece in pieces) else Support(pieces, ends)


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
    joint: list[tuple[list[int], Piece]],
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
        joint.append((columns, Transformed(_bijection(constraint, len(columns), refusal))))


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
