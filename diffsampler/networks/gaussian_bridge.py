"""A control network that knows the control to a Gaussian."""

import torch
from torch import Tensor

from diffsampler.networks.control import Control
from diffsampler.networks.fourier import TimeFunction, TimePerceptron
from diffsampler.networks.reals import on_reals
from diffsampler.processes import Process

# Bound of the log variance, relative to the process; soft, so that a network that reached it can come back.
MAX_LOG_VARIANCE = 10.0


class GaussianBridgeMLP(Control):
    """u(t, x) = m + p (v - 1) / (1 + q (v - 1)) x / scale, with m and log v learned functions of t and x.

    p and q are the process's (`Process.gaussian_control`): for constant v and m = 0 this is the exact control that
    takes the process to N(0, v scale^2) (the Foellmer drift). Its coefficient stays bounded whatever v, and a variance
    that depends on x, as in a funnel, is one learned function instead of a product that a perceptron must approximate.
    m is a perceptron on x and Fourier features of time, as in `FourierMLP`; log v is another output of it plus a
    function of time alone. Zero at initialisation.

    Arguments:
        process: that it steers, or D.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        frequencies: the number of Fourier features.
    """

    def __init__(self, process: Process | int, width: int = 64, depth: int = 2, frequencies: int = 64) -> None:
        super().__init__()
        process = on_reals(type(self).__name__, process)
        self.dim = dim = process.space.dim
        self.register_buffer("scale", process.scale.detach().clone(), persistent=False)
        self._gaussian_control = process.gaussian_control
        self.perceptron = TimePerceptron(dim, 2 * dim, width, depth, frequencies)
        self.log_variance = TimeFunction(dim, width, frequencies)

    def embed(self, t: Tensor) -> Tensor:
        p, q = (part.to(t.dtype).expand(*t.shape, self.dim) for part in self._gaussian_control(t.unsqueeze(-1)))
        return torch.cat([p, q, self.log_variance(t), self.perceptron.time(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        p, q, log_variance, embedding = embedding.split([*[self.dim] * 3, embedding.shape[-1] - 3 * self.dim], -1)
        mean, correction = self.perceptron(embedding, x).chunk(2, -1)
        excess = (MAX_LOG_VARIANCE * torch.tanh((log_variance + correction) / MAX_LOG_VARIANCE)).expm1()
        return mean + p * excess / (1 + excess * q) * (x / self.scale.to(x.dtype))
