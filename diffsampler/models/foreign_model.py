"""Models of other packages, which are asked in arrays."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsampler.energies import BoltzmannWeight, Energy
from diffsampler.errors import InputError
from diffsampler.models.named_target import NamedTarget, Values
from diffsampler.target import check_log_z


class ForeignModel(NamedTarget):
    """A model whose log-density and score another package computes, float64, of free numbers.

    Arguments:
        density: its "energy" is minus the log-density, Jacobian and all constants included, its "forces" the score.
        dim: how many free numbers there are.
        workers: in how many processes to evaluate it; 0 for this one.
        dims: the names of a parameter's dimensions, by its name.
        coords: the labels along a dimension, by its name.
        log_z: the log evidence, where it is known exactly.
    """

    def __init__(
        self,
        density: Energy,
        dim: int,
        workers: int = 0,
        dims: Mapping[str, list[str]] | None = None,
        coords: Mapping[str, list[Any]] | None = None,
        log_z: float | None = None,
    ) -> None:
        super().__init__(dim, dims, coords)
        self.fn = _Weight(density, workers=workers, check=False)
        self.differentiable = density.has_forces
        self.log_z = check_log_z(type(self).__name__, log_z)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.fn(x)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fn.log_prob_and_score(x) if self.differentiable else super().log_prob_and_score(x)


class _Weight(BoltzmannWeight):
    asked = "The log-density at a point"


def check_function(kind: str, model: Any) -> None:
    """Raise InputError if what a target of this kind is made of is no function."""
    if not callable(model):
        raise InputError(f"model of {kind} must be a function, got {model!r}.")


def check_call(kind: str, model: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Raise InputError if a model cannot be called with these."""
    if not isinstance(args, tuple | list):
        raise InputError(
            f"args of {kind} must be a tuple of what the model is called with, such as (y,), got {type(args).__name__}."
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InputError(
            f'kwargs of {kind} must be a dictionary by name, such as {{"y": y}}, got {type(kwargs).__name__}.'
        )
    try:
        signature = inspect.signature(model)
    except (TypeError, ValueError):  # of what Python knows none
        return
    try:
        signature.bind(*args, **(kwargs or {}))
    except TypeError as error:
        named = f" and the kwargs {', '.join(kwargs)}" if kwargs else ""
        raise InputError(
            f"{kind} cannot call {getattr(model, '__name__', 'the model')}{signature} with {len(args)} args{named}: "
            f"{error}."
        ) from error


def check_observed(kind: str, sites: Mapping[str, Any]) -> None:
    """Raise InputError if what is observed at sites of NumPyro or Pyro, by name, does not fit their distributions."""
    for name, site in sites.items():
        shape, expected = tuple(np.shape(site["value"])), tuple(site["fn"].shape())
        try:
            np.broadcast_shapes(shape, expected)
        except ValueError as error:
            raise InputError(
                f"{kind}: what the model observes as {name} has the shape {shape}, and its distribution {expected}."
            ) from error


def check_latent(kind: str, latent: Mapping[str, Any], mixture: str) -> None:
    """Raise InputError if sites of NumPyro or Pyro, by name, are none, or one has discrete values.

    Arguments:
        kind: the target, for messages.
        latent: the sites.
        mixture: the distribution of their package that sums over discrete values.
    """
    if discrete := [name for name, site in latent.items() if site["fn"].support.is_discrete]:
        raise InputError(
            f"{kind} takes no discrete parameters, and {', '.join(discrete)} is discrete: was obs= forgotten there? "
            f"Else sum over its values in the model, as {mixture} does."
        )
    if not latent:
        raise InputError(f"{kind} needs a model with parameters, and this one has none.")


def rows_of(x: Tensor) -> np.ndarray:
    """Points with shape (*, D) as an array of its own, float64, with shape (n, D)."""
    return x.detach().reshape(-1, x.shape[-1]).to("cpu", torch.float64, copy=True).numpy()


def values_like(x: Tensor, values: Mapping[str, Any]) -> Values:
    """Arrays by name, with shapes (n, *shape), as float64 tensors with shapes (*, *shape) beside x."""
    found = {}
    for name, value in values.items():
        value = torch.from_numpy(np.array(value, dtype=np.float64))
        found[name] = value.reshape(*x.shape[:-1], *value.shape[1:]).to(x.device)
    return found


def seed_of(generator: torch.Generator | None) -> int:
    """For another package's noise, below 2^31."""
    return int(torch.randint(2**31 - 1, (), generator=generator, device=getattr(generator, "device", "cpu")))
