"""What is unknown in a model, with its prior: a vector, or named parameters within their constraints."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from diffsampler.errors import InputError, check_instance
from diffsampler.families.family import Family, Member
from diffsampler.models.distributions import in_float64
from diffsampler.models.model_target import ModelTarget
from diffsampler.models.named_target import NamedTarget, Values


class Unknowns(ABC):
    """Free numbers x in R^D with a prior, and what a model's functions are told of them.

    Attributes:
        dim: D.
    """

    dim: int

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """n draws of the prior, with shape (n, D), by torch's global generator."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """The log prior density of x, with shape (*), for shape (*, D)."""

    @abstractmethod
    def values(self, x: Tensor) -> Any:
        """What functions get for x with shape (*, D)."""

    @abstractmethod
    def said_of(self, n: int) -> str:
        """What functions get for n points, in words."""

    def member(self, family: Family, context: Tensor) -> Member:
        """The posterior of one data set, with shape (C)."""
        return Member(family, context)


class VectorUnknowns(Unknowns):
    """A vector, which functions get as it is.

    Arguments:
        prior: with one event dimension.
    """

    def __init__(self, prior: Distribution) -> None:
        check_instance("prior", prior, Distribution, "MultivariateNormal(torch.zeros(2), torch.eye(2))")
        if len(prior.event_shape) != 1 or prior.batch_shape:
            raise InputError(
                "prior must be one distribution of vectors, as Independent(Normal(loc, scale), 1) is, or one for each "
                f"parameter by its name, got batch shape {tuple(prior.batch_shape)} and event shape "
                f"{tuple(prior.event_shape)}."
            )
        self.prior, self.dim = prior, prior.event_shape[0]

    def sample(self, n: int) -> Tensor:
        return self.prior.sample((n,))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.prior.log_prob(x)

    def values(self, x: Tensor) -> Tensor:
        return x

    def said_of(self, n: int) -> str:
        return f"a tensor of shape ({n}, {self.dim})"


class NamedUnknowns(Unknowns):
    """Named parameters, each within the support of its prior, by the maps of `ModelTarget`: functions get a dictionary.

    Arguments:
        prior: a distribution for each parameter.
        dims, coords: as in `ModelTarget`.
    """

    def __init__(
        self,
        prior: Mapping[str, Distribution],
        dims: Mapping[str, list[str]] | None = None,
        coords: Mapping[str, list[Any]] | None = None,
    ) -> None:
        self.model = ModelTarget(prior=prior, dims=dims, coords=coords)
        self.dim = self.model.dim

    def sample(self, n: int) -> Tensor:
        found, count = [], 0
        while count < n:
            more = self.model.starting_points(n - count)
            if more is None or not len(more):
                raise InputError("prior must have draws within its support: its distributions are simulated from.")
            found.append(more)
            count += len(more)
        return torch.cat(found)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.model.log_prob(x)

    def values(self, x: Tensor) -> Values:
        """Where the prior is zero by rounding, those of its end."""
        low, high = (end.to(x.device) for end in self.model.limits)
        return self.model.constrain(x.double().clamp(low, high))

    def said_of(self, n: int) -> str:
        shapes = self.values(self.sample(1)).items()
        return "values by name of shape " + ", ".join(f"{name} {(n, *value.shape[1:])}" for name, value in shapes)

    def member(self, family: Family, context: Tensor) -> Member:
        return NamedMember(family, context, self)


class NamedMember(Member, NamedTarget):
    """The posterior of one data set, with named parameters.

    Arguments:
        family: which.
        context: the data, with shape (C).
        unknowns: its parameters.
    """

    def __init__(self, family: Family, context: Tensor, unknowns: NamedUnknowns) -> None:
        super().__init__(family, context)
        self._unknowns = unknowns
        self.dims, self.coords, self.limits = unknowns.model.dims, unknowns.model.coords, unknowns.model.limits

    def constrain(self, x: Tensor) -> Values:
        return self._unknowns.values(x)

    @property
    def coordinate_names(self) -> list[str]:
        return self._unknowns.model.coordinate_names

    @property
    def observed_data(self) -> Values:
        return {"data": self.context.cpu()}


def asked_in_rows(function: Any, unknowns: Unknowns, x: Tensor, data: Tensor) -> Tensor:
    """A likelihood at x and data, with shapes (*, D) and (*, C): what it gives for each, summed over its terms, (*)."""
    rows, lead = x.reshape(-1, x.shape[-1]), x.shape[:-1]
    with in_float64():
        given = data.expand(*lead, -1).reshape(len(rows), -1).double()
        try:
            found = function(unknowns.values(rows), given)
        except InputError:
            raise
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise InputError(
                f"log_likelihood failed, given {unknowns.said_of(len(rows))}, and data of shape "
                f"{tuple(given.shape)}: {type(error).__name__}: {error}."
            ) from error
    if not isinstance(found, Tensor) or not found.ndim or len(found) != len(rows):
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"log_likelihood must return a number for each draw, with shape (B) or terms of it (B, N), here B = "
            f"{len(rows)}, got {shown}."
        )
    return (found if found.ndim == 1 else found.flatten(1).sum(-1)).reshape(lead)


def read_unknowns(
    prior: Distribution | Mapping[str, Distribution],
    dims: Mapping[str, list[str]] | None,
    coords: Mapping[str, list[Any]] | None,
) -> Unknowns:
    """A vector or named parameters, by what a prior is."""
    if isinstance(prior, Mapping):
        return NamedUnknowns(prior, dims, coords)
    if dims or coords:
        raise InputError("dims and coords are of named parameters: give prior as a dictionary of distributions.")
    return VectorUnknowns(prior)
