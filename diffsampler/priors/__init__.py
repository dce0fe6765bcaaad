"""Priors: what a process starts from, fixed or learned, one file each."""

from diffsampler.priors.base import Prior
from diffsampler.priors.dirac import DiracPrior
from diffsampler.priors.gaussian import GaussianPrior
from diffsampler.priors.mixture import GaussianMixturePrior
from diffsampler.priors.momentum import MomentumPrior, log_momentum
from diffsampler.priors.product import ProductPrior
from diffsampler.priors.uniform import UniformPrior

__all__ = [
    "DiracPrior",
    "GaussianMixturePrior",
    "GaussianPrior",
    "MomentumPrior",
    "Prior",
    "ProductPrior",
    "UniformPrior",
    "log_momentum",
]
