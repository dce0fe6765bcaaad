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

BELOW = (constraints.greater_than, constraints.greater_than_eq)
WITHIN = (constraints.interval, constraints.half_open_interval)
# By whether there is a lower and an upper bound.
KINDS = {(False, False): Everywhere, (True, False): Above, (False, True): Below, (True, True): Between}


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
    declaration = _Declaration(given, dim, name)
    if isinstance(given, Constraint):
        declaration.read(given, list(range(dim)))
    elif isinstance(given, tuple | list) and len(given) == 2:
        for bounds, value in zip((declaration.low, declaration.high), given, strict=True):
            declaration.bound(bounds, list(range(dim)), value)
    else:
        raise declaration.refusal()
    return declaration.support()


def beside_reals(given: Any, dim: int, num_reals: int) -> Any:
    """A declaration of D coordinates as one of D and some real ones after them; None where it is None."""
    if given is None:
        return None
    if isinstance(given, Constraint):
        return constraints.cat([given, constraints.real], dim=-1, lengths=[dim, num_reals])
    bounds = (torch.as_tensor(bound, dtype=torch.float64).expand(dim) for bound in given)
    ends = zip(bounds, (-math.inf, math.inf), strict=True)
    return tuple(torch.cat([bound, bound.new_full((num_reals,), end)]) for bound, end in ends)


class _Declaration:
    """What is read of a declaration so far: bounds of each coordinate, and what is no box."""

    def __init__(self, given: Any, dim: int, name: str) -> None:
        self.name, self.dim = name, dim
        self.given = f"the class {given.__name__}" if isinstance(given, type) else " ".join(f"{given!r}".split())[:80]
        self.low = torch.full((dim,), -torch.inf, dtype=torch.float64)
        self.high = -self.low
        self.joint: list[tuple[list[int], Piece]] = []

    def refusal(self, reason: str = "") -> InputError:
        """The sentence that says what was given, and what is accepted."""
        return InputError(
            f"support of {self.name} must be None, a pair (low, high) of numbers or of {self.dim} numbers each, or a "
            "constraint of torch.distributions.constraints that keeps the dimension, such as positive or "
            f"interval(0, 1), got {self.given}{': ' * bool(reason)}{reason}."
        )

    def read(self, constraint: Constraint, columns: list[int]) -> None:
        """Take what a constraint says of these coordinates."""
        if isinstance(constraint, constraints.independent):
            self.read(constraint.base_constraint, columns)
        elif isinstance(constraint, constraints.cat | constraints.stack):
            lengths = constraint.lengths if isinstance(constraint, constraints.cat) else [1] * len(constraint.cseq)
            if constraint.dim not in (0, -1) or sum(lengths) != len(columns):
                raise self.refusal(f"it is of {sum(lengths)} coordinates along dim {constraint.dim}, not of the last")
            for part, mine in zip(constraint.cseq, torch.tensor(columns).split(lengths), strict=True):
                self.read(part, mine.tolist())
        elif type(constraint) in (*BELOW, *WITHIN, constraints.less_than):
            if type(constraint) is not constraints.less_than:
                self.bound(self.low, columns, constraint.lower_bound)
            if type(constraint) not in BELOW:
                self.bound(self.high, columns, constraint.upper_bound)
        elif type(constraint) is not type(constraints.real):
            self.joint.append((columns, Transformed(self.bijection(constraint, len(columns)))))

    def bijection(self, constraint: Constraint, n: int) -> Transform:
        """From R^n onto a constraint."""
        if isinstance(constraint, type(constraints.simplex)):
            raise self.refusal(
                "a simplex has one dimension less than coordinates; as a parameter of "
                "diffsampler.models.ModelTarget, simplex(n), it has a density"
            )
        try:
            transform = biject_to(constraint)
            keeps = transform.domain.event_dim < 2 and transform.forward_shape((n,)) == (n,)
        except (NotImplementedError, ValueError) as error:
            raise self.refusal("torch knows no bijection for it") from error
        if not keeps:
            raise self.refusal("its bijection changes the dimension")
        return transform

    def bound(self, bounds: Tensor, columns: list[int], value: Any) -> None:
        """Take bounds of these coordinates."""
        try:
            value = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
            bounds[columns] = value.expand(len(columns))
        except (TypeError, ValueError, RuntimeError) as error:
            raise self.refusal() from error

    def support(self) -> Support | None:
        """The map onto all that; None where it is R^D."""
        low, high = self.low, self.high
        if not (low < high).all() or (low == torch.inf).any() or (high == -torch.inf).any():
            raise self.refusal("low must be below high in every coordinate")
        taken = {column for columns, _ in self.joint for column in columns}
        pieces, ends = list(self.joint), list(zip(low.tolist(), high.tolist(), strict=True))
        for kind, piece in KINDS.items():
            columns = [k for k in range(self.dim) if k not in taken and tuple(map(math.isfinite, ends[k])) == kind]
            if columns:
                bounds = [end[columns] for end, is_known in zip((low, high), kind, strict=True) if is_known]
                pieces.append((columns, piece(*bounds)))
        return None if all(isinstance(piece, Everywhere) for _, piece in pieces) else Support(pieces, ends)
