"""Networks: controls (the control u of a process) and state flows, with wrappers that compose with any of them."""

from diffsampler.networks.conditional_control import ConditionalControl
from diffsampler.networks.control import Control, FourierMLP
from diffsampler.networks.convolutions import LatticeConvolutions
from diffsampler.networks.coordinatewise import CoordinatewiseControl
from diffsampler.networks.flow import FourierFlow, StateFlow
from diffsampler.networks.follmer_drift import FollmerDrift
from diffsampler.networks.forward_looking import ForwardLookingFlow
from diffsampler.networks.gaussian_bridge import GaussianBridgeMLP
from diffsampler.networks.langevin import LangevinControl
from diffsampler.networks.learned_variance import LearnedVariance
from diffsampler.networks.mixture_control import MixtureControl
from diffsampler.networks.pair_forces import PairForces
from diffsampler.networks.preconditioned import PreconditionedMLP
from diffsampler.networks.reduced_precision import ReducedPrecision
from diffsampler.renamed import missing_name

__all__ = [
    "ConditionalControl",
    "CoordinatewiseControl",
    "Control",
    "FollmerDrift",
    "ForwardLookingFlow",
    "FourierFlow",
    "FourierMLP",
    "GaussianBridgeMLP",
    "LangevinControl",
    "LatticeConvolutions",
    "LearnedVariance",
    "MixtureControl",
    "PairForces",
    "PreconditionedMLP",
    "ReducedPrecision",
    "StateFlow",
]
__getattr__ = missing_name(__name__, __all__)
