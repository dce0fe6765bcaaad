"""Targets: unnormalised densities `R(x) = exp(log_prob(x))` on R^D.

A target is all that a user has to write. `log_prob` is enough; `score` comes from autograd unless a closed form is
cheaper, `log_z` and `sample` exist where they are known exactly.
Everything else in the library reads a target through `CountedTarget`, so that each evaluation is counted, checked
for shape and dtype, and watched for non-finite values. A target gets copies of points, and its values are copied, to
float64: what it does to its argument, or later writes into its result, is its own.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from diffsampler.errors import InputError, check_count, check_flag
from diffsampler.support import support_of

__all__ = [
    "CountedTarget",
    "FunctionTarget",
    "Target",
    "check_log_z",
    "check_repeatable",
    "checked_log_prob_and_score",
    "differ",
    "in_its_dtype",
    "naming_the_target",
    "or_zero_density",
    "points_of_all_sizes",
    "raise_in_words",
]

NUM_REPEATED = NUM_COMPARED = 16
MAX_ROUNDING = 1e-3  # nats
LEAVES_TORCH = re.compile(r"numpy\(\) on Tensor that requires|export tensors that require")
VALIDATION = re.compile(r"Expected (?:value argument|parameter) .* distribution (\w+)\(", re.DOTALL)

Values = TypeVar("Values")


class Target(nn.Module, ABC):
    """An unnormalised density on R^D, or on a part of it.

    Where the density is not zero may be declared as `support`; `log_prob` is then asked there only, and remains the
    log-density of x: the library walks in coordinates y that go anywhere, adds the Jacobian, and returns x. That makes
    edges easy, at which the density does not fall to zero or has a pole.

    Tensors that a subclass needs are registered with `register_buffer(..., persistent=False)`: they follow the
    sampler to its device and dtype and stay out of checkpoints.

    Arguments:
        dim: the dimension D, at least 1.

    Attributes:
        log_z: the exact or audited log normalising constant, or None where it is not known.
        plot_range: (low, high) of the figures' axes, or None to take it from samples.
        plot_coordinates: the pair of coordinates that two-dimensional figures show.
        differentiable: whether the score says anything: False for a simulator, or a density of flat steps.
        support: None, which leaves it to `log_prob` to return -inf; a pair (low, high), of numbers or of D numbers
            each, infinite where there is no bound; or a constraint of `torch.distributions.constraints` that keeps the
            dimension, such as `positive`, `cat([positive, real], lengths=[1, 2])` or
            `diffsampler.support.ordered_vector`.
    """

    differentiable: bool = True
    support: Constraint | tuple[Any, Any] | None = None
    log_z: float | None = None
    plot_range: tuple[float, float] | None = None
    plot_coordinates: tuple[int, int] = (0, 1)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log R(x), with shape (*), for x with shape (*, D), a copy. -inf where the density is zero."""

    def _apply(self, *args: Any, **kwargs: Any) -> "Target":
        self.__dict__.pop("_dtypes_that_work", None)
        return super()._apply(*args, **kwargs)

    def score(self, x: Tensor) -> Tensor:
        """The gradient of `log_prob`, with shape (*, D)."""
        return self.log_prob_and_score(x)[1]

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`log_prob` and `score` in one pass, both detached, by autograd unless a subclass has a closed form.

        Works under `torch.no_grad` and `torch.inference_mode`.
        """
        with torch.inference_mode(False), torch.enable_grad():
            # Outside of inference mode its tensors cannot require gradients, copies can.
            x = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
            # A copy, which may be changed in place, as x itself may not.
            log_prob = self.log_prob(x.clone())
            if not isinstance(log_prob, Tensor):
                raise InputError(
                    f"{type(self).__name__}.log_prob must return a tensor, got {type(log_prob).__name__}. Write it in "
                    "torch, or wrap what it returns in torch.as_tensor and say differentiable=False."
                )
            if not log_prob.requires_grad:
                raise InputError(
                    f"{type(self).__name__}.log_prob is not differentiable by autograd (was x detached or made an "
                    "array, or is the value the same wherever it is finite?). Write it in torch, override "
                    "log_prob_and_score, or say differentiable=False; a drift of your choice is then one without "
                    "score, such as FourierMLP."
                )
            (score,) = torch.autograd.grad(log_prob.sum(), x)
        return log_prob.detach(), score

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n exact samples, with shape (n, D); NotImplementedError where there are none."""
        raise NotImplementedError(f"{type(self).__name__} has no exact samples.")

    @property
    def has_exact_samples(self) -> bool:
        """Whether `sample` is implemented."""
        return type(self).sample is not Target.sample

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Figures of merit of samples x, with shape (n, D), that make sense for this target only (mode masses, say)."""
        return {}


class FunctionTarget(Target):
    """The density `exp(fn(x))` of a function written in torch.

    Arguments:
        fn: maps a tensor with shape (*, D) to log-densities with shape (*).
        dim: the dimension D.
        log_z: its log normalising constant, if known.
        plot_range: (low, high) of the figures' axes.
        plot_coordinates: the pair of coordinates that two-dimensional figures show.
        differentiable: False for a function that autograd cannot follow, of arrays for one.
        support: where the density is not zero, as in `Target`: (0, 1) for a box, `constraints.positive`.

    Example:
        >>> target = FunctionTarget(lambda x: -(x - 1).abs().sum(-1), dim=3)
        >>> target.log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        dim: int,
        log_z: float | None = None,
        plot_range: tuple[float, float] | None = None,
        plot_coordinates: tuple[int, int] = (0, 1),
        differentiable: bool = True,
        support: Constraint | tuple[Any, Any] | None = None,
    ) -> None:
        super().__init__(dim)
        if not callable(fn):
            raise InputError(f"fn must be a function of a tensor, got {fn!r}.")
        self.fn = fn
        self.log_z = check_log_z(type(self).__name__, log_z)
        self.plot_range = plot_range
        self.plot_coordinates = plot_coordinates
        self.differentiable = check_flag("differentiable", differentiable)
        self.support = support
        support_of(self)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.fn(x)


class CountedTarget:
    """A target whose evaluations are counted and checked; the way the library reads a target.

    One evaluation is one point, whether value, score or both are asked for. Counts of non-finite results stay on the
    device until they are read.

    Attributes:
        num_evaluations: points evaluated so far.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.num_evaluations = 0
        self._num_invalid: Tensor | int = 0

    @property
    def num_invalid(self) -> int:
        """Points where log_prob was NaN or +inf, or where it was finite and the score was not."""
        return int(self._num_invalid)

    @num_invalid.setter
    def num_invalid(self, value: int) -> None:
        self._num_invalid = value

    def log_prob(self, x: Tensor) -> Tensor:
        """log R(x), float64, with shape (*), for x with shape (*, D)."""
        try:
            log_prob, num_invalid = checked_log_prob(self.target, x)
        except ValueError as error:
            raise_in_words(self.target, error)
            raise
        self.count(log_prob.numel(), num_invalid)
        return log_prob

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log R(x), float64, and its gradient in the dtype of x, with shapes (*) and (*, D)."""
        try:
            log_prob, score, num_invalid = checked_log_prob_and_score(self.target, x)
        except ValueError as error:
            raise_in_words(self.target, error)
            raise
        self.count(log_prob.numel(), num_invalid)
        return log_prob, score

    def differentiable_log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same by autograd, with gradients to x: the score is differentiated through `log_prob`."""
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            log_prob = self.log_prob(x)
            if not log_prob.requires_grad:
                raise InputError(
                    f"{self.name}.log_prob carries no gradient, but its score is differentiated here, by autograd: a "
                    "score by hand is not enough. Write log_prob in torch, or use a process without score."
                )
            (score,) = torch.autograd.grad(log_prob.sum(), x, create_graph=True)
        return log_prob, score

    def settled(self, x: Tensor, log_prob: Tensor) -> Tensor:
        """log_prob of points x with shape (n, D); evaluated again in float64 where float32 has rounded too much of it.

        Decided by the highest of the points, and once so for good: beside an additive constant of 1e8, float32 knows
        the rest to 8 nats. While a sampler is far from its target, rounding is no matter beside their spread.
        """
        if x.dtype == torch.float64 or self.needs_float64:
            return log_prob
        top = or_zero_density(log_prob).topk(min(NUM_COMPARED, len(x))).indices
        exact = self.log_prob(x[top].double())
        error = (exact - log_prob[top]).abs()
        usable = exact[exact.isfinite()]
        spread = usable.std(correction=0) if len(usable) else 1.0
        if not (error[error.isfinite()] > MAX_ROUNDING * max(1.0, float(spread))).any():
            return log_prob
        self.target.__dict__["_needs_float64"] = True
        return self.log_prob(x)

    @property
    def needs_float64(self) -> bool:
        """Whether points of float32 are converted before they reach the target."""
        return self.target.__dict__.get("_needs_float64", False)

    @property
    def rounding(self) -> float:
        """The relative error of the target's values."""
        return rounding_of(self.target)

    @property
    def name(self) -> str:
        """Of the user's class."""
        return _name_of(self.target)

    def count(self, num_evaluations: int, num_invalid: Tensor) -> None:
        """Add evaluations, and how many of them were invalid, with shape ()."""
        self.num_evaluations += num_evaluations
        self._num_invalid = self._num_invalid + num_invalid

    @contextmanager
    def counting_apart(self) -> Iterator[Callable[[], tuple[int, Tensor]]]:
        """Leave out what is evaluated in this context; what it yields says how much that is, and how much invalid."""
        before = self.num_evaluations, self._num_invalid
        self._num_invalid = 0
        try:
            yield lambda: (self.num_evaluations - before[0], torch.as_tensor(self._num_invalid))
        finally:
            self.num_evaluations, self._num_invalid = before


def checked_log_prob(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """log R(x), float64, with shape (*), for x with shape (*, D), and at how many points it is NaN or +inf."""
    log_prob = _of_points(target, x, in_its_dtype(target, x, target.log_prob))
    return log_prob, log_prob.numel() - (log_prob < math.inf).sum()


def checked_log_prob_and_score(target: Target, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log R(x), float64, its gradient in the dtype of x, and the number of invalid points: (*), (*, D) and ()."""
    log_prob, score = in_its_dtype(target, x, target.log_prob_and_score)
    log_prob = _of_points(target, x, log_prob)
    if score.shape != x.shape:
        raise InputError(
            f"{_name_of(target)}.score must return the shape of x, {tuple(x.shape)}, got {tuple(score.shape)}."
        )
    score = score.to(x.dtype, copy=True)
    # In few operations, since a rollout does this at every step: what is not finite times 0 is NaN.
    valid = (log_prob + (score * 0).sum(-1) < math.inf) | (log_prob == -math.inf)
    return log_prob, score, log_prob.numel() - valid.sum()


def in_its_dtype(target: Target, x: Tensor, call: Callable[[Tensor], Values]) -> Values:
    """call on a copy of x, for a target that may hold constants of one precision only, or need float64.

    Where x is of another precision, it is converted. What works is found at the first call and kept, until the target's
    own tensors change.
    """
    if x.ndim != 2:
        # As points in rows, whatever they are here: what works with those is all that a user tries.
        return _in_shape(in_its_dtype(target, x.reshape(-1, x.shape[-1]), call), x)
    works = target.__dict__.setdefault("_dtypes_that_work", {})
    dtype = torch.float64 if target.__dict__.get("_needs_float64") else x.dtype
    key = call.__name__, dtype
    if key in works:
        return call(x.to(works[key][0], copy=True))
    try:
        values = call(x.to(dtype, copy=True))
    except (RuntimeError, BufferError) as error:
        if LEAVES_TORCH.search(str(error)):
            raise InputError(
                f"{_name_of(target)}.log_prob leaves torch, as NumPy code does, and autograd cannot follow. Say so by "
                "differentiable=False, as in FunctionTarget(fn, dim, differentiable=False), or write it in torch."
            ) from error
        if not re.search("dtype|scalar type", str(error)):
            raise
        dtype = torch.float32 if dtype == torch.float64 else torch.float64
        try:
            values = call(x.to(dtype, copy=True))
        except Exception:
            raise error from None
    log_prob = values[0] if isinstance(values, tuple) else values
    works[key] = dtype, getattr(log_prob, "dtype", dtype)
    return values


def _in_shape(values: Values, x: Tensor) -> Values:
    """Values of points in rows, for points x with shape (*, D); what has another shape is left for later checks."""
    if isinstance(values, tuple):
        return type(values)(_in_shape(value, x) for value in values)
    num_points = x.shape[:-1].numel()
    if not isinstance(values, Tensor) or not values.ndim or len(values) != num_points:
        return values
    return values.reshape((*x.shape[:-1], *values.shape[1:]))


def rounding_of(target: Target) -> float:
    """The relative error of rounding in a target's values, as far as their dtypes tell."""
    works = target.__dict__.get("_dtypes_that_work", {}).values()
    own = [max(torch.finfo(dtype).eps for dtype in pair if dtype.is_floating_point) for pair in works]
    inner = _inside(target)
    return max(min(own, default=0.0), 0.0 if inner is None else rounding_of(inner))


def _of_points(target: Target, x: Tensor, log_prob: Tensor) -> Tensor:
    """The values of a target in float64, once they are known to be one for each point."""
    expected = tuple(x.shape[:-1])
    if not isinstance(log_prob, Tensor):
        raise InputError(
            f"{_name_of(target)}.log_prob must return a tensor, got {type(log_prob).__name__}. Write it in torch, or "
            "wrap what it returns in torch.as_tensor and say differentiable=False."
        )
    if log_prob.shape != expected:
        raise InputError(
            f"{_name_of(target)}.log_prob must return one value per point, shape {expected} for x of shape "
            f"{tuple(x.shape)}, got {tuple(log_prob.shape)}."
        )
    if not log_prob.is_floating_point():
        raise InputError(f"{_name_of(target)}.log_prob must return floating-point values, got dtype {log_prob.dtype}.")
    # A copy: a target may write the next values into the same memory.
    return log_prob.to(torch.float64, copy=True)


def _name_of(target: Target) -> str:
    """That of the user's class."""
    while (inner := _inside(target)) is not None:
        target = inner
    return type(target).__name__


def _inside(target: Target) -> Target | None:
    """The target that a change of coordinates is made around."""
    inner = getattr(target, "target", None)
    return inner if isinstance(inner, Target) else None


def raise_in_words(target: Target, error: ValueError) -> None:
    """Raise InputError where an error is one of torch.distributions, which say at length what they were given."""
    if match := VALIDATION.search(str(error)):
        raise InputError(
            f"{_name_of(target)}.log_prob raises outside of its support: {match[1]} of torch.distributions validates "
            "its arguments. Make it with validate_args=False, and return -inf there, by torch.where: some "
            "distributions have finite values outside."
        ) from error


def check_log_z(name: str, log_z: float | None) -> float | None:
    """Return `log_z` as a float if it is a finite number, or None."""
    if isinstance(log_z, Tensor) and log_z.numel() == 1:
        log_z = log_z.item()
    if log_z is None:
        return None
    if isinstance(log_z, bool) or not isinstance(log_z, Real) or not math.isfinite(log_z):
        raise InputError(f"log_z of {name} must be a finite number, or None where it is not known, got {log_z!r}.")
    return float(log_z)


def check_repeatable(target: CountedTarget, x: Tensor) -> None:
    """Raise InputError if a target answers the same points differently when it is asked again, or in other company.

    Weights of such values belong to no density: noise widens them, and a mean over the batch is another target in every
    batch.

    Arguments:
        target: the density.
        x: points with shape (n, D), the first of which are asked for.
    """
    x = x[:NUM_REPEATED].double()
    first = target.log_prob(x)
    # The same operations in the same order; on a GPU, sums may come in another.
    if differ(first, target.log_prob(x), 1e-6, 1e-9 if x.device.type == "cpu" else 1e-4):
        raise InputError(
            f"{target.name}.log_prob is random: it gives other values when it is asked for the same points again. Fix "
            "its noise, put a network in eval mode, or return the log of a mean over many draws made beforehand."
        )
    # Sums of other shapes are rounded otherwise, but by less than this; in float32, differences of large terms by more.
    margin = 1e-2 if target.rounding < 1e-10 else 1.0
    if differ(first[1::2].flip(0), target.log_prob(x[1::2].flip(0)), margin, 1e-3):
        raise InputError(
            f"{target.name}.log_prob of a point depends on the other points that it is asked for with, or on their "
            "order. Treat each row of x by itself."
        )


def points_of_all_sizes(dim: int, device: torch.device | str = "cpu") -> Tensor:
    """A few points from near the origin to far from it, float64, with shape (n, D); always the same."""
    noise = torch.randn(NUM_REPEATED, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (torch.logspace(-1, 2, NUM_REPEATED, dtype=torch.float64).unsqueeze(-1) * noise).to(device)


def differ(a: Tensor, b: Tensor, margin: float, rounding: float) -> bool:
    """Whether two answers to the same points differ by more than a margin and a relative error of rounding."""
    return not torch.allclose(a, b, rtol=rounding, atol=margin, equal_nan=True)


@contextmanager
def naming_the_target(target: Target, what: str) -> Iterator[None]:
    """Turn what a user's density raises into one sentence that says where it happened."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{what} failed, in {type(target).__name__}.log_prob or a part of yours. It is given tensors of shape "
            f"(*, {target.dim}). The error is {type(error).__name__}: {reason}"
        ) from error


def or_zero_density(log_prob: Tensor) -> Tensor:
    """The same with what is no log-density, NaN and +inf, as a density of zero."""
    return torch.where(log_prob < math.inf, log_prob, -math.inf)
