"""What is averaged, and what is made of the averages."""

from abc import ABC, abstractmethod

from torch import Tensor

from diffsampler.errors import InputError


class Observable(ABC):
    """A smooth function g(E[f]) of the means of some f(x) under the target.

    A plain function f of x, with shape (n) or (n, k) for x with shape (n, D), is the case in which g changes nothing.
    """

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """f(x), whose means are taken, with shape (n) or (n, k), for all draws x at once, with shape (n, D)."""

    def of_means(self, means: Tensor) -> Tensor:
        """g, with shape () or (m), for means with shape (k), () where f(x) has shape (n); written in torch."""
        return means

    def fitted_to(self, x: Tensor, weight: Tensor) -> "Observable":
        """The same, with what is to be chosen by the draws, with shape (n, D), and their weights, with shape (n)."""
        return self


def columns(values: Tensor, n: int) -> Tensor:
    """What a function says of n draws, in float64, with shape (n, k); not finite where it was not.

    Raises:
        InputError: if it is no tensor, or of another shape.
    """
    if not isinstance(values, Tensor):
        raise InputError(f"it must return a tensor, got {type(values).__name__}.")
    if values.ndim not in (1, 2) or len(values) != n or not values.numel() or values.is_complex():
        raise InputError(
            f"it must return one number, or one row of numbers, a draw: shape ({n},) or ({n}, k), got "
            f"{tuple(values.shape)} of {values.dtype}."
        )
    return values.detach().double().reshape(n, -1)
