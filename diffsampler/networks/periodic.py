"""Networks on angles: functions of sine and cosine. Arguments as in their counterparts on the line."""

from diffsampler.networks.drift import FourierMLP
from diffsampler.networks.flow import FourierFlow
from diffsampler.networks.fourier import PeriodicPerceptron

__all__ = ["PeriodicFlow", "PeriodicMLP"]


class PeriodicMLP(FourierMLP):
    """A perceptron on the sines and cosines of x and Fourier features of time, zero at initialisation."""

    periodic = True
    perceptron_type = PeriodicPerceptron


class PeriodicFlow(FourierFlow):
    """A perceptron on the sines and cosines of x and Fourier features of time, zero at initialisation."""

    periodic = True
    perceptron_type = PeriodicPerceptron
