"""Models of data: named parameters within constraints, and what is said of their posterior."""

from diffsampler.models.model_target import ModelTarget
from diffsampler.models.parameters import (
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
from diffsampler.models.posterior import Posterior

__all__ = [
    "ModelTarget",
    "Parameter",
    "Posterior",
    "bounded",
    "cholesky_corr",
    "cholesky_cov",
    "covariance",
    "greater_than",
    "less_than",
    "ordered",
    "positive",
    "real",
    "simplex",
    "unit_interval",
]
