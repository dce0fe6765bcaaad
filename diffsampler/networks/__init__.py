"""Networks: drifts (the control u of a process) and state flows, with wrappers that compose with any of them."""

from diffsampler.networks.coordinatewise import CoordinatewiseDrift
from diffsampler.networks.drift import Drift, FourierMLP
from diffsampler.networks.flow import Flow, FourierFlow
from diffsampler.networks.forward_looking import ForwardLookingFlow
from diffsampler.networks.gaussian_bridge import GaussianBridgeMLP
from diffsampler.networks.langevin import LangevinDrift
from diffsampler.networks.learned_variance import LearnedVariance
from diffsampler.networks.mixture_control import MixtureControl
from diffsampler.networks.periodic import PeriodicFlow, PeriodicMLP
from diffsampler.networks.preconditioned import PreconditionedMLP
from diffsampler.networks.reduced_precision import ReducedPrecision

__all__ = [
    "CoordinatewiseDrift",
    "Drift",
    "Flow",
    "ForwardLookingFlow",
    "FourierFlow",
    "FourierMLP",
    "GaussianBridgeMLP",
    "LangevinDrift",
    "LearnedVariance",
    "MixtureControl",
    "PeriodicFlow",
    "PeriodicMLP",
    "PreconditionedMLP",
    "ReducedPrecision",
]
