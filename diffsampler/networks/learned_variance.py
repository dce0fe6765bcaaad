"""A learned width of every step, around any control."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import check_positive
from diffsampler.networks.control import Control
from diffsampler.networks.fourier import TimeFunction, TimePerceptron
from diffsampler.networks.langevin import LangevinControl
from diffsampler.networks.wrapper import ControlWrapper
from diffsampler.processes import Process


class LearnedVariance(ControlWrapper):
    """The wrapped control, and for each coordinate the log of a factor on the step's standard deviation.

    The factor is a learned function of t and x, 1 at initialisation, and stays between exp(-bound) and exp(bound).

    References:
        Improved off-policy training of diffusion samplers, Sendera et al., 2024, arXiv:2402.05098, section 3.

    Arguments:
        process: that it steers, or D.
        network: makes the wrapped control from the process.
        bound: on the log of the factor; positive.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
    """

    learns_width = True

    def __init__(
        self,
        process: Process | int,
        network: Callable[[Process], Control] = LangevinControl,
        bound: float = 3.0,
        width: int = 64,
        depth: int = 2,
    ) -> None:
        super().__init__(process, network)
        self.bound = check_positive("bound", bound)
        self.perceptron = TimePerceptron(self.space.num_features, self.space.dim, width, depth)
        self.log_scale = TimeFunction(self.space.dim, width)

    def embed(self, t: Tensor) -> Tensor:
        return torch.cat([self.log_scale(t), self.perceptron.time(t), self.network.embed(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        sizes = [self.space.dim, self.perceptron.input.out_features]
        offset, time, rest = embedding.split([*sizes, embedding.shape[-1] - sum(sizes)], -1)
        raw = offset + self.perceptron(time, self.space.features(x))
        return torch.cat([self.network(rest, x, score), self.bound * torch.tanh(raw / self.bound)], -1)
