"""Parameters within constraints: maps of R^d, their inverses and their Jacobians."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from diffsampler import InputError
from diffsampler.models import (
    Parameter,
    bounded,
    cholesky_corr,
    cholesky_cov,
    covariance,
    greater_than,
    less_than,
    ordered,
    positive,
    real,
    simplex,
    unit_interval,
)

INF = math.inf
KINDS = {
    "real": (real(), 1),
    "real matrix": (real(2, 3), 6),
    "positive": (positive(4), 4),
    "unit_interval": (unit_interval(), 1),
    "bounded": (bounded(-2.0, 5.0, 3), 3),
    "greater_than": (greater_than(1.5), 1),
    "less_than": (less_than(-1.0, 2), 2),
    "ordered": (ordered(3), 3),
    "simplex": (simplex(4), 3),
    "two simplexes": (simplex(2, 3), 4),
    "cholesky_corr": (cholesky_corr(4), 6),
    "cholesky_cov": (cholesky_cov(3), 6),
    "covariance": (covariance(3), 6),
    "one variance": (covariance(1), 1),
    "two covariances": (covariance(2, 2), 6),
    "bounded above by nothing": (bounded(0.0, math.inf, 2), 2),
    "bounded by nothing": (bounded(-math.inf, math.inf), 1),
    "intervals of all kinds": (
        Parameter(constraints.interval(*torch.tensor([[0.0, -INF, -INF, 0.0], [INF, INF, 3.0, 1.0]])), (4,)),
        4,
    ),
    "a constraint": (Parameter(constraints.independent(constraints.interval(0.0, 2.0), 1), (3,)), 3),
}
every_kind = pytest.mark.parametrize(("parameter", "num_free"), KINDS.values(), ids=KINDS)


def coordinates_of(parameter: Parameter, value: Tensor) -> Tensor:
    """The entries that an integral over values is over: as many as are free."""
    name = type(parameter.constraint).__name__
    if name == "_Simplex":
        return value[..., :-1].flatten()
    if name in ("_CorrCholesky", "_LowerCholesky", "_PositiveDefinite"):
        n = value.shape[-1]
        rows, columns = torch.tril_indices(n, n, -1 if name == "_CorrCholesky" else 0)
        return value[..., rows, columns].flatten()
    return value.flatten()


@every_kind
def test_values_are_within_and_lead_back(parameter: Parameter, num_free: int, generator: torch.Generator) -> None:
    free = 1.5 * torch.randn(4, 5, num_free, generator=generator)
    value, log_det = parameter.constrain(free)
    assert parameter.num_free == num_free and value.shape == (4, 5, *parameter.shape) and log_det.shape == (4, 5)
    inside = parameter.constraint.check(value)
    assert inside.all()
    torch.testing.assert_close(parameter.free(value), free, rtol=1e-7, atol=1e-7)


@every_kind
def test_jacobians_are_those_of_the_entries_that_are_free(
    parameter: Parameter, num_free: int, generator: torch.Generator
) -> None:
    free = torch.randn(num_free, generator=generator)
    jacobian = torch.autograd.functional.jacobian(lambda y: coordinates_of(parameter, parameter.constrain(y)[0]), free)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(parameter.constrain(free)[1], expected, rtol=1e-9, atol=1e-9)


def test_shares_are_those_of_torch(generator: torch.Generator) -> None:
    free = torch.randn(7, 4, generator=generator)
    theirs = biject_to(constraints.simplex)
    value, log_det = simplex(5).constrain(free)
    torch.testing.assert_close(value, theirs(free))
    torch.testing.assert_close(log_det, theirs.log_abs_det_jacobian(free, theirs(free)))


@pytest.mark.parametrize(
    "parameter", [positive(2), unit_interval(2), simplex(3), less_than(1.0, 2), bounded(-1.0, 1.0, 2)], ids=repr
)
def test_far_out_values_stay_within_and_densities_fall(parameter: Parameter) -> None:
    # A pole at an edge, x^(-1/2) say, is outweighed by the Jacobian however far out.
    free = torch.tensor([[-800.0, 3.0], [-300.0, -300.0], [0.0, 0.0], [40.0, -2000.0]])
    value, log_det = parameter.constrain(free)
    assert value.isfinite().all() and log_det.isfinite().all()
    if parameter.constraint is not constraints.positive:
        assert (log_det[[0, 1, 3]] < log_det[2] - 10).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Parameter(constraints.boolean), "continuous"),
        (lambda: Parameter(constraints.nonnegative_integer), "sum the discrete one out"),
        (lambda: Parameter("positive"), "must be one of diffsampler.models"),
        (lambda: simplex(), "shape"),
        (lambda: simplex(1), "nothing free"),
        (lambda: bounded(3.0, 1.0), "low below high"),
        (lambda: bounded(math.inf, math.inf), "low below high"),
        (lambda: greater_than(-math.inf), "greater_than needs a finite number.* real"),
        (lambda: real(-1), "shape"),
        (lambda: Parameter(constraints.positive_definite, (2, 3)), "square"),
    ],
)
def test_refuses_in_words(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
