"""Self-normalised weighted means, and smooth functions of them, with standard errors by the delta method."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.observables.base import Observable, columns

MANY = 1e9  # draws, of which Student's t is normal


@dataclass(frozen=True)
class ObservableEstimate:
    """What weighted draws say of an observable.

    Standard errors are those of the weights: they know nothing of modes that no draw has seen.

    Attributes:
        value: float64, with shape () or (k).
        standard_error: of each component, with the same shape.
        exact: what the target knows the value to be, with the same shape, or None.
        edges: of the bins, with shape (k + 1), where it is a histogram.
        freedom: how many draws make the standard error, with the same shape: (sum_i a_i^2)^2 / sum_i a_i^4 for parts
            a_i of it.
    """

    value: Tensor
    standard_error: Tensor
    exact: Tensor | None = None
    edges: Tensor | None = None
    freedom: Tensor | None = None

    @property
    def half_width(self) -> Tensor:
        """Of an interval of 95 %, by Student's t: an error that few draws make is hardly known, and short more often.

        References:
            An approximate distribution of estimates of variance components, Satterthwaite, 1946.
        """
        from scipy.special import stdtrit

        freedom = torch.full_like(self.standard_error, MANY) if self.freedom is None else self.freedom
        return torch.as_tensor(stdtrit(freedom.numpy(), 0.975)) * self.standard_error

    @property
    def error(self) -> Tensor | None:
        """The value minus the exact one."""
        return None if self.exact is None else self.value - self.exact

    @property
    def z_score(self) -> Tensor | None:
        """The error in standard errors; 0 where both are 0."""
        return None if self.exact is None else (self.error / self.standard_error).nan_to_num(0.0, math.inf, -math.inf)

    def to_dict(self) -> dict[str, float | list[float | None] | None]:
        """For JSON: numbers and lists of them; None where there is none, or JSON has no word for it."""
        parts = {"value": self.value, "standard_error": self.standard_error}
        if self.exact is not None:
            parts |= {"exact": self.exact, "error": self.error, "z_score": self.z_score}
        if self.edges is not None:
            parts["edges"] = self.edges
        return {key: _plain(part.tolist()) for key, part in parts.items()}


def estimate_observable(
    name: str,
    observable: Callable[[Tensor], Tensor],
    x: Tensor,
    log_weight: Tensor | None = None,
    exact: float | Sequence[float] | Tensor | None = None,
) -> ObservableEstimate:
    """Estimate g(E[f]) by weighted draws.

    E[f] is estimated by sum_i w_i f_i / sum_i w_i, whose covariance is sum_i w_i^2 (f_i - mean) (f_i - mean)^T /
    (sum_i w_i)^2 by the delta method for a ratio of means, and g by g at these means, with its derivatives.

    References:
        Monte Carlo theory, methods and examples, Owen, 2013, section 9.2.

    Arguments:
        name: for messages.
        observable: a function of x, with shape (n) or (n, k), or an `Observable`.
        x: draws with shape (n, D).
        log_weight: their log importance weights, with shape (n); -inf, NaN and +inf are weights of zero, and f is not
            asked there. Without any, all weights are equal.
        exact: the value, where it is known.

    Raises:
        InputError: if f is not finite at a draw of positive weight, or of another shape, or no weight is positive.
    """
    if not callable(observable):
        raise InputError(f"observable {name!r} must be a function of x, got {observable!r}.")
    log_weight = torch.zeros(len(x)) if log_weight is None else log_weight
    if len(log_weight) != len(x):
        raise InputError(f"log_weight must be one of each of {len(x)} draws, got {len(log_weight)}.")
    log_weight = log_weight.detach().to(x.device, torch.float64)
    weight = torch.where(log_weight.isfinite(), log_weight, -math.inf).softmax(0).nan_to_num(0.0)
    used = weight > 0
    if not used.any():
        raise InputError(f"observable {name!r} has no mean: none of {len(x)} draws has a usable density.")
    x, weight = x[used].detach(), weight[used]
    edges, of_means = None, _unchanged
    with torch.no_grad():
        try:
            if isinstance(observable, Observable):
                observable = observable.fitted_to(x, weight)
                edges, of_means = getattr(observable, "edges", None), observable.of_means
            given = observable(x.clone())
            values = columns(given, len(x))
        except InputError as error:
            raise InputError(f"observable {name!r}: {error}") from error
    unusable = int((~values.isfinite()).any(-1).sum())
    if unusable:
        raise InputError(f"observable {name!r} is NaN or infinite at {unusable} of {len(x)} draws of positive weight.")
    mean = weight @ values
    scaled = weight.unsqueeze(-1) * (values - mean)
    if given.ndim == 1:
        mean = mean.squeeze(0)
    value, slope = _with_slope(of_means, mean.cpu())
    if value.ndim > 1 or not value.isfinite().all():
        raise InputError(f"observable {name!r} must make finite numbers of its means, got {value}.")
    # A root of sums of squares: what a covariance matrix rounds below zero cannot occur.
    parts = scaled.cpu() @ slope.reshape(value.numel(), -1).T
    error, freedom = (found.reshape(value.shape) for found in (parts.square().sum(0).sqrt(), _freedom(parts)))
    return ObservableEstimate(value, error, _exact(name, exact, value), edges, freedom)


def _freedom(parts: Tensor) -> Tensor:
    """Of how many draws an error is made, with shape (m), for their parts in it, with shape (n, m)."""
    squares = parts.square() / parts.square().amax(0).clamp(min=torch.finfo(parts.dtype).tiny)
    num = squares.sum(0).square() / squares.square().sum(0)
    return num.nan_to_num(MANY).clamp(max=MANY)  # an error of zero rests on all


def _unchanged(means: Tensor) -> Tensor:
    return means


def _with_slope(of_means: Callable[[Tensor], Tensor], mean: Tensor) -> tuple[Tensor, Tensor]:
    """g, with shape (*), and its derivatives, with shape (*, k), at means with shape (k)."""
    with torch.inference_mode(False), torch.enable_grad():
        mean = mean.clone()
        return of_means(mean).detach(), torch.autograd.functional.jacobian(of_means, mean)


def _exact(name: str, exact: float | Sequence[float] | Tensor | None, value: Tensor) -> Tensor | None:
    if exact is None:
        return None
    found = torch.as_tensor(exact, dtype=torch.float64)
    if found.shape != value.shape:
        raise InputError(
            f"the exact value of observable {name!r} must have shape {tuple(value.shape)}, got {tuple(found.shape)}."
        )
    return found


def _plain(numbers: float | list[float]) -> float | list[float | None] | None:
    if isinstance(numbers, list):
        return [_plain(number) for number in numbers]
    return numbers if math.isfinite(numbers) else None
