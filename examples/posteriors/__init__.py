"""Posteriors of the kind that posteriordb collects, written from their papers.

posteriordb: a set of posteriors for Bayesian inference and probabilistic programming, Magnusson et al., 2024.

diffsampler fit --model.target=examples.posteriors.Garch
"""

from examples.posteriors.base import CubedModel
from examples.posteriors.mixtures import Galaxies, Mixture
from examples.posteriors.regressions import BreastCancerLogistic, Horseshoe, Interaction, VaryingIntercept
from examples.posteriors.schools import SchoolsCentred, SchoolsNoncentred
from examples.posteriors.series import Garch, GaussianProcess, LotkaVolterra

POSTERIORS: dict[str, type[CubedModel]] = {
    "schools_noncentred": SchoolsNoncentred,
    "schools_centred": SchoolsCentred,
    "interaction": Interaction,
    "varying_intercept": VaryingIntercept,
    "garch": Garch,
    "gaussian_process": GaussianProcess,
    "logistic": BreastCancerLogistic,
    "horseshoe": Horseshoe,
    "mixture": Mixture,
    "galaxies": Galaxies,
    "lotka_volterra": LotkaVolterra,
}

__all__ = [
    "POSTERIORS",
    "BreastCancerLogistic",
    "CubedModel",
    "Galaxies",
    "Garch",
    "GaussianProcess",
    "Horseshoe",
    "Interaction",
    "LotkaVolterra",
    "Mixture",
    "SchoolsCentred",
    "SchoolsNoncentred",
    "VaryingIntercept",
]
