"""log Z without learning: searches, Markov chains, tempered sequential Monte Carlo, annealed importance sampling."""

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.independent import Independent
from diffsampler.baseline.moves import HamiltonianMove, RandomWalkMove
from diffsampler.baseline.reference import Replicates, reference
from diffsampler.baseline.tempering import Annealed, ais, reverse_ais, smc

__all__ = [
    "Annealed",
    "GaussianComponents",
    "HamiltonianMove",
    "Independent",
    "RandomWalkMove",
    "Replicates",
    "ais",
    "reference",
    "reverse_ais",
    "smc",
]
