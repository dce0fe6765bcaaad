"""Networks on angles: functions of sine and cosine."""

import torch
from torch import Tensor

from diffsampler.networks.drift import Drift
from diffsampler.networks.flow import Flow
from diffsampler.networks.fourier import TimePerceptron

__all__ = ["PeriodicFlow", "PeriodicMLP", "on_the_circle"]


def on_the_circle(x: Tensor) -> Tensor:
    """Sines and cosines, with shape (*, 2 D), of angles with shape (*, D)."""
    return torch.cat([x.sin(), x.cos()], -1)


class PeriodicMLP(Drift):
    """A perceptron on the sines and cosines of x and Fourier features of time, zero at initialisation.

    Arguments:
        dim: the dimension D.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        frequencies: the number of Fourier features of time.
    """

    periodic = True

    def __init__(self, dim: int, width: int = 64, depth: int = 2, frequencies: int = 64) -> None:
        super().__init__()
        self.perceptron = TimePerceptron(2 * dim, dim, width, depth, frequencies)

    def embed(self, t: Tensor) -> Tensor:
        return self.perceptron.time(t)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        return self.perceptron(embedding, on_the_circle(x))


class PeriodicFlow(Flow):
    """A perceptron on the sines and cosines of x and Fourier features of time, zero at initialisation.

    Arguments:
        dim: the dimension D.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        frequencies: the number of Fourier features of time.
    """

    periodic = True

    def __init__(self, dim: int, width: int = 64, depth: int = 2, frequencies: int = 64) -> None:
        super().__init__()
        self.perceptron = TimePerceptron(2 * dim, 1, width, depth, frequencies)

    def embed(self, t: Tensor) -> Tensor:
        return self.perceptron.time(t)

    def forward(self, embedding: Tensor, x: Tensor, interpolation: Tensor | None = None) -> Tensor:
        return self.perceptron(embedding, on_the_circle(x)).squeeze(-1)
