"""Densities as the library reads them: a user's target, checked, and what changes of variables make of it.

A user's `log_prob` gets copies of points, in the precision that it works in, and its values are copied, to float64:
what it does to its argument, or later writes into its result, is its own. All else reads a density through
`CountedTarget`, so that every evaluation is counted and watched for non-finite values.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from diffsampler.errors import InputError
from diffsampler.target import FunctionTarget, Target

# An end point of zero density enters a loss as if its weight were exp(-10) Z; estimates use the zero itself.
ZERO_DENSITY_MARGIN = 10.0
LEAVES_TORCH = re.compile(r"numpy\(\) on Tensor that requires|export tensors that require")

Values = TypeVar("Values", bound=Tensor | tuple[Tensor, ...])


class Density(nn.Module, ABC):
    """An unnormalised density of points with shape (*, D), whose values are float64.

    Arguments:
        dim: the dimension D.

    Attributes:
        needs_float64: whether points of float32 are converted first: see `CountedTarget.settled`.
    """

    needs_float64: bool = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @property
    @abstractmethod
    def user_target(self) -> Target:
        """What the user wrote."""

    @property
    @abstractmethod
    def rounding(self) -> float:
        """The relative error of values, as far as dtypes tell."""

    @property
    @abstractmethod
    def takes_float32_only(self) -> bool:
        """Whether points of float64 are known to be rounded before the user's function sees them."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """log R(x), float64, with shape (*)."""

    @abstractmethod
    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log R(x), float64, and its gradient, with shapes (*) and (*, D)."""

    @abstractmethod
    def from_user(self, x: Tensor) -> Tensor:
        """Points of this density at points x of the user's target, with shape (*, D)."""

    @property
    @abstractmethod
    def of_user(self) -> "CheckedTarget":
        """The user's target, in its own coordinates."""

    def to_user(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The points of the user's target, with shape (*, D), and what log R is there more than the target's, (*)."""
        raise NotImplementedError(f"{type(self).__name__} has points that are none of the target's alone.")

    @property
    def differentiable(self) -> bool:
        """Whether the score says anything."""
        return self.user_target.differentiable

    @property
    def name(self) -> str:
        """Of the user's class."""
        return self.user_target.known_as

    def log_prob(self, x: Tensor) -> Tensor:
        """log R(x), float64, with shape (*), for x with shape (*, D)."""
        return self.value(self._in_precision(x))

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log R(x), float64, and its gradient in the dtype of x, with shapes (*) and (*, D)."""
        log_prob, score = self.value_and_score(self._in_precision(x))
        return log_prob, score.to(x.dtype)

    def _in_precision(self, x: Tensor) -> Tensor:
        return x.double() if self.needs_float64 else x


class CheckedTarget(Density):
    """A user's target, whose answers are checked for shape and kind.

    A target may hold constants of one precision only. Where points of another make it raise, they are converted: what
    works is found at the first call and kept, until the target's own tensors change.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target.dim)
        self.target = target
        self._forget()

    @property
    def user_target(self) -> Target:
        return self.target

    @property
    def rounding(self) -> float:
        return min(self._rounding.values(), default=0.0)

    @property
    def takes_float32_only(self) -> bool:
        return self._taken.get(("log_prob", torch.float64)) == torch.float32

    def from_user(self, x: Tensor) -> Tensor:
        return x

    @property
    def of_user(self) -> "CheckedTarget":
        return self

    def to_user(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-1], dtype=torch.float64)

    def value(self, x: Tensor) -> Tensor:
        log_prob = check_values(self.target, x, self._ask(x, self.target.log_prob))
        # A copy: a target may write the next values into the same memory.
        return log_prob.to(torch.float64, copy=True)

    def value_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, score = self._ask(x, self.target.log_prob_and_score)
        check_values(self.target, x, log_prob)
        check_score(self.target, x, score)
        return log_prob.to(torch.float64, copy=True), score.to(x.dtype, copy=True)

    def _apply(self, *args: Any, **kwargs: Any) -> "CheckedTarget":
        self._forget()
        return super()._apply(*args, **kwargs)

    def _forget(self) -> None:
        self._taken: dict[tuple[str, torch.dtype], torch.dtype] = {}
        self._rounding: dict[torch.dtype, float] = {}

    def _ask(self, x: Tensor, call: Callable[[Tensor], Values]) -> Values:
        """What the target says of points in rows, whatever they are here: that is all that a user tries."""
        rows, key = x.reshape(-1, x.shape[-1]), (call.__name__, x.dtype)
        if key in self._taken:
            return _in_shape(call(rows.to(self._taken[key], copy=True)), x)
        taken, values = self._first_values(rows, call)
        log_prob = values[0] if isinstance(values, tuple) else values
        if isinstance(log_prob, Tensor) and log_prob.is_floating_point():
            self._taken[key] = taken
            self._rounding[x.dtype] = max(torch.finfo(taken).eps, torch.finfo(log_prob.dtype).eps)
        return _in_shape(values, x)

    def _first_values(self, rows: Tensor, call: Callable[[Tensor], Values]) -> tuple[torch.dtype, Values]:
        """A dtype that the target takes, that of the rows if it can be, and its values there."""
        own, other = rows.dtype, torch.float32 if rows.dtype == torch.float64 else torch.float64
        try:
            return own, call(rows.clone())
        except (RuntimeError, BufferError) as error:
            if LEAVES_TORCH.search(str(error)):
                raise InputError(
                    f"{self.name}.log_prob leaves torch, as NumPy code does, and autograd cannot follow. Say so by "
                    "differentiable=False, as in FunctionTarget(fn, dim, differentiable=False), or write it in torch."
                ) from error
            try:
                values = call(rows.to(other))
            except Exception:
                hint = _one_at_a_time(self.target, rows)
                if hint:
                    raise InputError(f"{self.name}.log_prob cannot take {len(rows)} points: {error}.{hint}") from error
                raise error from None
            try:
                call(rows.clone())
            except (RuntimeError, BufferError):
                return other, values
            raise  # it works in either: what failed at first was no matter of precision


def check_values(target: Target, x: Tensor, log_prob: Any) -> Tensor:
    """The values of a target at points x, with shape (*, D); InputError unless there is one for each of them."""
    if not isinstance(log_prob, Tensor):
        raise InputError(
            f"{target.known_as}.log_prob must return a tensor, got {type(log_prob).__name__}. Write it in torch, or "
            f"wrap what it returns in torch.as_tensor and say differentiable=False.{_one_at_a_time(target, x)}"
        )
    if log_prob.shape != x.shape[:-1]:
        raise InputError(
            f"{target.known_as}.log_prob must return one value per point, shape {tuple(x.shape[:-1])} for x of shape "
            f"{tuple(x.shape)}, got {tuple(log_prob.shape)}.{_one_at_a_time(target, x)}"
        )
    if not log_prob.is_floating_point():
        raise InputError(f"{target.known_as}.log_prob must return floating-point values, got dtype {log_prob.dtype}.")
    return log_prob


def check_score(target: Target, x: Tensor, score: Tensor) -> Tensor:
    """The score of a target at points x; InputError unless it has their shape."""
    if score.shape != x.shape:
        raise InputError(
            f"{target.known_as}.score must return the shape of x, {tuple(x.shape)}, got {tuple(score.shape)}."
        )
    return score


def checked_values_and_score(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both of a target at points x, in one pass; InputError unless they are of these points."""
    log_prob, score = target.log_prob_and_score(x)
    return check_values(target, x, log_prob), check_score(target, x, score)


def _one_at_a_time(target: Target, x: Tensor) -> str:
    """What to do, if a function of the user's answers for one point where it does not for several; else nothing."""
    if not isinstance(target, FunctionTarget) or x.ndim < 2:
        return ""
    try:
        float(target.fn(x.detach().reshape(-1, x.shape[-1])[0].clone()))
    except Exception:
        return ""
    return " Of one point at a time it is FunctionTarget.from_energy(lambda x: -log_prob(x), dim, batched=False)."


class DerivedDensity(Density):
    """A density that is computed from another one.

    Arguments:
        inner: the other one; a target of the user's is checked on the way.
        dim: the dimension of points of this one.
    """

    def __init__(self, inner: Density | Target, dim: int) -> None:
        super().__init__(dim)
        self.inner = CheckedTarget(inner) if isinstance(inner, Target) else inner

    @property
    def user_target(self) -> Target:
        return self.inner.user_target

    @property
    def rounding(self) -> float:
        return self.inner.rounding

    @property
    def takes_float32_only(self) -> bool:
        return self.inner.takes_float32_only

    def from_user(self, x: Tensor) -> Tensor:
        return self.inner.from_user(x)

    @property
    def of_user(self) -> CheckedTarget:
        return self.inner.of_user


def or_zero_density(log_prob: Tensor) -> Tensor:
    """The same with what is no log-density, NaN and +inf, as a density of zero."""
    return torch.where(log_prob < math.inf, log_prob, -math.inf)


def _in_shape(values: Values, x: Tensor) -> Values:
    """Values of points in rows, for points x with shape (*, D); what has another shape is left for later checks."""
    if isinstance(values, tuple):
        return tuple(_in_shape(value, x) for value in values)
    num_points = x.shape[:-1].numel()
    if x.ndim == 2 or not isinstance(values, Tensor) or not values.ndim or len(values) != num_points:
        return values
    return values.reshape((*x.shape[:-1], *values.shape[1:]))
