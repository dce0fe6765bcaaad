"""A drift network that knows the drift to a Gaussian."""

import torch
from torch import Tensor

from diffsampler.networks.drift import Drift
from diffsampler.networks.fourier import TimeFunction, TimePerceptron
from diffsampler.processes import Process

__all__ = ["GaussianBridgeMLP"]

# Widest log variance, relative to the process: exp(7) is about 1100.
MAX_LOG_VARIANCE = 7.0


class GaussianBridgeMLP(Drift):
    """u(t, x) = m + (v - 1) / (1 + (v - 1) t) x / scale, with m and log v learned functions of t and x.

    For constant v and m = 0 this is the exact control that takes Brownian motion to N(0, v scale^2) (the Foellmer
    drift). Its coefficient stays between -1 / (1 - t) and 1 / t, so the term cannot blow up, and a variance that
    depends on x, as in a funnel, is one learned function instead of a product that a perceptron must approximate.
    m is a perceptron on x and Fourier features of time, as in `FourierMLP`; log v is another output of it plus a
    function of time alone. Zero at initialisation.

    Arguments:
        dim: the dimension D.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        frequencies: the number of Fourier features.
    """

    def __init__(self, dim: int, width: int = 64, depth: int = 2, frequencies: int = 64) -> None:
        super().__init__()
        self.dim = dim
        self.perceptron = TimePerceptron(dim, 2 * dim, width, depth, frequencies)
        self.log_variance = TimeFunction(dim, width, frequencies)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def adapt(self, process: Process) -> None:
        self.scale = process.scale.detach().clone()

    def embed(self, t: Tensor) -> Tensor:
        return torch.cat([t.unsqueeze(-1), self.log_variance(t), self.perceptron.time(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        t, log_variance, embedding = embedding.split([1, self.dim, embedding.shape[-1] - self.dim - 1], -1)
        mean, correction = self.perceptron(embedding, x).chunk(2, -1)
        excess = (log_variance + correction).clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE).expm1()
        return mean + excess / (1 + excess * t) * (x / self.scale.to(x.dtype))
