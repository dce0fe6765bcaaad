"""Targets whose points are values of named parameters."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffsampler.target import Target

Values = dict[str, Tensor]


class NamedTarget(Target):
    """A density of free numbers x, with shape (*, D), that are values of named parameters.

    What a posterior needs for draws by name, tables and ArviZ; `log_prob` carries the Jacobian of `constrain`.

    Arguments:
        dim: the dimension D.
        dims: the names of a parameter's dimensions, by its name; a string is one name.
        coords: the labels along a dimension, by its name.
    """

    def __init__(
        self,
        dim: int,
        dims: Mapping[str, list[str]] | None = None,
        coords: Mapping[str, list[Any]] | None = None,
    ) -> None:
        super().__init__(dim)
        self.dims = {name: [names] if isinstance(names, str) else list(names) for name, names in (dims or {}).items()}
        self.coords = {name: list(labels) for name, labels in (coords or {}).items()}

    @abstractmethod
    def constrain(self, x: Tensor) -> Values:
        """Values by name, float64, each with shape (*, *shape), for free numbers with shape (*, D)."""

    def log_likelihoods(self, x: Tensor) -> Tensor | Values | None:
        """Of each observation, for free numbers with shape (n, D); None where it is not known.

        By the name of what is observed, each with shape (n, *shape); a tensor of that shape where it has no name.
        """
        return None

    def dims_of_terms(self, shape: tuple[int, ...]) -> list[str] | None:
        """Names of the dimensions of terms of the likelihood that have no name; None where they are not known."""
        return None

    @property
    def observed_data(self) -> Mapping[str, Any]:
        """What is observed, tensors or arrays by name, as far as it is known."""
        return {}


def naming(target: Target) -> NamedTarget | None:
    """What names the points of a target: itself, or the one whose points these are; None where they have no names."""
    found = target.points_of or target
    return found if isinstance(found, NamedTarget) else None
