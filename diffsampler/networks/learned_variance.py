"""A learned width of every step, around any drift."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import check_positive
from diffsampler.networks.drift import Drift
from diffsampler.networks.fourier import PeriodicPerceptron, TimeFunction, TimePerceptron
from diffsampler.networks.langevin import LangevinDrift
from diffsampler.networks.wrapper import DriftWrapper

__all__ = ["LearnedVariance"]


class LearnedVariance(DriftWrapper):
    """The wrapped drift, and for each coordinate the log of a factor on the step's standard deviation.

    The factor is a learned function of t and x, 1 at initialisation, and stays between exp(-bound) and exp(bound).

    References:
        Improved off-policy training of diffusion samplers, Sendera et al., 2024, arXiv:2402.05098, section 3.

    Arguments:
        dim: the dimension D.
        network: makes the wrapped drift from the dimension.
        bound: on the log of the factor; positive.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
    """

    learns_width = True

    def __init__(
        self,
        dim: int,
        network: Callable[[int], Drift] = LangevinDrift,
        bound: float = 3.0,
        width: int = 64,
        depth: int = 2,
    ) -> None:
        super().__init__(dim, network)
        self.dim = dim
        self.bound = check_positive("bound", bound)
        perceptron = PeriodicPerceptron if self.periodic else TimePerceptron
        self.perceptron = perceptron(dim, dim, width, depth)
        self.log_scale = TimeFunction(dim, width)

    def embed(self, t: Tensor) -> Tensor:
        return torch.cat([self.log_scale(t), self.perceptron.time(t), self.network.embed(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        sizes = [self.dim, self.perceptron.input.out_features]
        offset, time, rest = embedding.split([*sizes, embedding.shape[-1] - sum(sizes)], -1)
        raw = offset + self.perceptron(time, x)
        return torch.cat([self.network(rest, x, score), self.bound * torch.tanh(raw / self.bound)], -1)
