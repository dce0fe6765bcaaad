"""Parameters of a model: where their values may lie, and how all of R^d is mapped there."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

from diffsampler.errors import InputError, check_count
from diffsampler.models.maps import Entrywise, Map, map_onto
from diffsampler.models.supports import support_of
from diffsampler.support.bijections import Everywhere
from diffsampler.support.declared import ordered_vector

DEPENDENT = 1e-10  # share of a variable's variance, that others do not explain
MATRICES = [
    type(each) for each in (constraints.positive_definite, constraints.lower_cholesky, constraints.corr_cholesky)
]


class Parameter:
    """Values within a constraint, as a function of free numbers.

    The density of the free numbers carries the Jacobian, so that integrals over them are integrals over the values:
    over all but the last entry of a simplex, the entries below the diagonal of a Cholesky factor of correlations, and
    those on and below it of a covariance or its Cholesky factor, as `torch.distributions` and Stan have them.

    Arguments:
        constraint: of `torch.distributions.constraints`.
        shape: of one value.

    Attributes:
        num_free: how many free numbers it has.

    Raises:
        InputError: if no map of R^d is known for the constraint, or no value of it has this shape.
    """

    def __init__(self, constraint: Constraint, shape: Sequence[int] = ()) -> None:
        if not isinstance(constraint, Constraint):
            raise InputError(
                "a parameter must be one of diffsampler.models, such as real(), positive(8) or simplex(3), or a "
                f"constraint of torch.distributions.constraints, got {constraint!r}."
            )
        self.constraint, self.shape = constraint, tuple(check_count("shape", size) for size in shape)
        if constraint.is_discrete:
            raise InputError(
                f"a parameter must be continuous, got {_named(constraint)}: sum the discrete one out, by "
                "torch.logsumexp over its values in the log density, as mixtures do."
            )
        try:
            self._map: Map = map_onto(constraint, self.shape)
        except NotImplementedError as error:
            raise InputError(f"torch knows no map of R^d onto {_named(constraint)}.") from error
        except (ValueError, IndexError, RuntimeError) as error:
            raise InputError(f"no value of {_named(constraint)} has the shape {self.shape}: {error}.") from error
        self.num_free = self._map.num_free
        if not self.num_free:
            raise InputError(f"a value of shape {self.shape} within {_named(constraint)} has nothing free.")

    @classmethod
    def of(cls, prior: Distribution) -> "Parameter":
        """What a distribution is a distribution of."""
        return cls(support_of(prior), prior.batch_shape + prior.event_shape)

    def limits(self) -> tuple[Tensor, Tensor]:
        """Between which free numbers values move as these do, float64, each with shape (num_free)."""
        return self._map.limits()

    @property
    def is_free(self) -> bool:
        """Whether its free numbers are its values, which may be any."""
        return isinstance(self._map, Entrywise) and isinstance(self._map.piece, Everywhere)

    @property
    def free_shape(self) -> tuple[int, ...]:
        """That of its values where each has a free number of its own; else all in a row."""
        return self.shape if isinstance(self._map, Entrywise) else (self.num_free,)

    def constrain(self, free: Tensor) -> tuple[Tensor, Tensor]:
        """Values, with shape (*, shape), and the log of the Jacobian, with shape (*), for shape (*, num_free)."""
        return self._map.forward(free)

    def free(self, value: Tensor) -> Tensor:
        """The numbers that give values with shape (*, shape), with shape (*, num_free)."""
        return self._map.inverse(value)

    def contains(self, value: Tensor) -> Tensor:
        """Whether values, with shape (*, shape), are within the constraint, with shape (*)."""
        inside = self.constraint.check(value)
        lead = value.ndim - len(self.shape)
        return inside.flatten(lead).all(-1) if inside.ndim > lead else inside

    def can_be_factorised(self, value: Tensor) -> Tensor | None:
        """Whether matrices, with shape (*, n, n), are regular after rounding, with shape (*, 1, 1); None of others.

        No row of a covariance may follow from those before it to ten digits: of the six that are left, functions make a
        density. Factors are known to more.
        """
        if type(self.constraint) not in MATRICES:
            return None
        is_product = type(self.constraint) is type(constraints.positive_definite)
        product = value if is_product else value @ value.mT
        factor, info = torch.linalg.cholesky_ex(product.detach())
        own = factor.diagonal(dim1=-2, dim2=-1).square() / product.diagonal(dim1=-2, dim2=-1)
        return ((info == 0) & (own > (DEPENDENT if is_product else 0.0)).all(-1))[..., None, None]

    def __repr__(self) -> str:
        return f"Parameter({_named(self.constraint)}, {self.shape})"


def real(*shape: int) -> Parameter:
    """Any number."""
    return Parameter(constraints.real, shape)


def positive(*shape: int) -> Parameter:
    """Above 0."""
    return Parameter(constraints.positive, shape)


def unit_interval(*shape: int) -> Parameter:
    """Between 0 and 1."""
    return Parameter(constraints.unit_interval, shape)


def bounded(low: float, high: float, *shape: int) -> Parameter:
    """Between two numbers."""
    if not low < high or low == math.inf or high == -math.inf:
        raise InputError(f"bounded needs low below high, got {low!r} and {high!r}.")
    return Parameter(constraints.interval(float(low), float(high)), shape)


def greater_than(low: float, *shape: int) -> Parameter:
    """Above a number."""
    _check_bound("greater_than", low)
    return Parameter(constraints.greater_than(float(low)), shape)


def less_than(high: float, *shape: int) -> Parameter:
    """Below a number."""
    _check_bound("less_than", high)
    return Parameter(constraints.less_than(float(high)), shape)


def _check_bound(name: str, bound: float) -> None:
    if not math.isfinite(bound):
        raise InputError(f"{name} needs a finite number, got {bound!r}: parameters without a bound are real().")


def ordered(*shape: int) -> Parameter:
    """Increasing along the last dimension: the locations of a mixture, say, whose labels may else be exchanged."""
    return Parameter(ordered_vector, shape)


def simplex(*shape: int) -> Parameter:
    """Positive, with sum 1 along the last dimension."""
    return Parameter(constraints.simplex, shape)


def cholesky_corr(*shape: int) -> Parameter:
    """Lower triangular factors L of correlation matrices L L^T: the last number is how many variables there are."""
    return Parameter(constraints.corr_cholesky, _square(shape))


def cholesky_cov(*shape: int) -> Parameter:
    """Lower triangular factors with a positive diagonal, of covariance matrices."""
    return Parameter(constraints.lower_cholesky, _square(shape))


def covariance(*shape: int) -> Parameter:
    """Symmetric matrices that are positive definite."""
    return Parameter(constraints.positive_definite, _square(shape))


def _square(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, *shape[-1:])


def _named(constraint: Constraint) -> str:
    return " ".join(repr(constraint).split())[:80]
