"""Models of data: named parameters within constraints, models of other packages, and what is said of their posterior.

PyMC, NumPyro, Pyro and BridgeStan are imported where a model of theirs is given: each is an optional extra.
"""

from diffsampler.models.model_target import ModelTarget
from diffsampler.models.named_target import NamedTarget
from diffsampler.models.numpyro_target import NumPyroTarget
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
from diffsampler.models.pymc_target import PyMCTarget
from diffsampler.models.pyro_target import PyroTarget
from diffsampler.models.stan_model import StanModel

__all__ = [
    "ModelTarget",
    "NamedTarget",
    "NumPyroTarget",
    "Parameter",
    "Posterior",
    "PyMCTarget",
    "PyroTarget",
    "StanModel",
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
