"""Observables: functions of draws whose means are of interest, and smooth functions of means, with standard errors."""

from diffsampler.observables.angles import Angles
from diffsampler.observables.base import Observable
from diffsampler.observables.cumulants import HeatCapacity, Susceptibility, Variance
from diffsampler.observables.estimate import ObservableEstimate, estimate_observable
from diffsampler.observables.histogram import Histogram
from diffsampler.observables.named import find_observables, observables_of
from diffsampler.observables.of_spaces import energy, histograms_of, magnetisation, pair_distances

__all__ = [
    "Angles",
    "HeatCapacity",
    "Histogram",
    "Observable",
    "ObservableEstimate",
    "Susceptibility",
    "Variance",
    "energy",
    "estimate_observable",
    "find_observables",
    "histograms_of",
    "magnetisation",
    "observables_of",
    "pair_distances",
]
