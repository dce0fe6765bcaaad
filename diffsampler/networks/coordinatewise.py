"""The same small network for every coordinate, around any control."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffsampler.errors import check_count, check_positive
from diffsampler.networks.control import Control, FourierMLP
from diffsampler.networks.fourier import FourierTimeEmbedding
from diffsampler.networks.wrapper import ControlWrapper
from diffsampler.processes import Process, as_process

WIDTH_BOUND = 3.0


class CoordinatewiseControl(ControlWrapper):
    """u_i(t, x) = network_i(t, x) + f(t, x_i, score_i, i), with one perceptron f for all coordinates.

    Around `LearnedVariance` the log of each width gets such a term too, between -3 and 3.

    A perceptron of all coordinates needs a width that grows with D to treat each of them as its own; where coordinates
    interact weakly, f does it with a handful of units, and a nonlinear function of the score at that. What tells
    coordinates apart is a learned offset of f's first layer. The score enters squashed, as y / (1 + |y|) for
    y = score / score_scale; f starts at zero. Of an angle f is a function of sin x_i and cos x_i.

    Arguments:
        process: that it steers, or D.
        network: makes the wrapped control from the process.
        width: the size of each hidden layer of f.
        depth: the number of hidden layers of f.
        score_scale: the size of a score that is neither small nor large; positive.
    """

    uses_score = True
    wraps_widths = True

    def __init__(
        self,
        process: Process | int,
        network: Callable[[Process], Control] = FourierMLP,
        width: int = 16,
        depth: int = 2,
        score_scale: float = 5.0,
    ) -> None:
        process = as_process(process)
        super().__init__(process, network)
        check_count("depth", depth)
        self.width = check_count("width", width)
        self.score_scale = check_positive("score_scale", score_scale)
        self.time = FourierTimeEmbedding(width)
        self.register_buffer("scale", process.scale.detach().clone(), persistent=False)
        num_features = self.space.features_of_each(torch.zeros(self.space.dim), self.scale).shape[-1]
        self.slopes = nn.Parameter(torch.randn(num_features + 1, width))
        self.offset = nn.Parameter(torch.randn(self.space.dim, width))
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.output = nn.Linear(width, 2 if self.learns_width else 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @property
    def learns_width(self) -> bool:
        return self.network.learns_width

    def embed(self, t: Tensor) -> Tensor:
        return torch.cat([self.time(t), self.network.embed(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        time, embedding = embedding[..., : self.width], embedding[..., self.width :]
        tamed = (score / self.score_scale).nan_to_num(0.0)
        squashed = (tamed / (1 + tamed.abs())).unsqueeze(-1)
        features = torch.cat([self.space.features_of_each(x, self.scale), squashed], -1)
        hidden = features @ self.slopes + self.offset + time.unsqueeze(-2)
        for layer in self.hidden:
            hidden = layer(nn.functional.silu(hidden))
        control, *log_scale = self.output(nn.functional.silu(hidden)).unbind(-1)
        bounded = [WIDTH_BOUND * torch.tanh(raw / WIDTH_BOUND) for raw in log_scale]
        return self.network(embedding, x, score) + torch.cat([control, *bounded], -1)
