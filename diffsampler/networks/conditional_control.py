"""Any control, made a function of a context too."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.networks.control import Control, FourierMLP
from diffsampler.networks.fourier import TimePerceptron
from diffsampler.networks.wrapper import ControlWrapper
from diffsampler.processes import Conditional, Process


class ConditionalControl(ControlWrapper):
    """The wrapped control of z, whose embedding of time is moved by a function of time and context.

    The wrapped one is made for the process of one member, and keeps the symmetries of its space for every context: it
    sees no more than z. At initialisation the context changes nothing.

    Arguments:
        process: that it steers, of a family.
        network: makes the wrapped control from the process of one member; it may learn widths too.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
    """

    wraps_widths = True

    def __init__(
        self, process: Process, network: Callable[[Process], Control] = FourierMLP, width: int = 64, depth: int = 2
    ) -> None:
        if not isinstance(process, Conditional):
            raise InputError(
                f"{type(self).__name__} is for samplers of a family, but {type(process).__name__} knows no context: "
                "take what it wraps."
            )
        super().__init__(process.process, network)
        self.context_dim = process.context_dim
        self.num_embedded = self.network.embed(torch.zeros(1)).shape[-1]
        self.perceptron = TimePerceptron(self.context_dim, self.num_embedded, width, depth)

    @property
    def learns_width(self) -> bool:
        return self.network.learns_width

    def embed(self, t: Tensor) -> Tensor:
        return torch.cat([self.network.embed(t), self.perceptron.time(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        z, context = x.split([self.space.dim, self.context_dim], -1)
        score = None if score is None else score[..., : self.space.dim]
        of_time, of_both = embedding.split([self.num_embedded, embedding.shape[-1] - self.num_embedded], -1)
        found = self.network(of_time + self.perceptron(of_both, context), z, score)
        still = torch.zeros_like(context).to(found.dtype)
        return torch.cat([part for of_z in found.split(self.space.dim, -1) for part in (of_z, still)], -1)
