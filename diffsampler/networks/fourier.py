"""The time-conditioned perceptron that control and flow networks share.

Time enters by an embedding added before the first activation. It is computed once for each time of the grid, never
for each state.
"""

import torch
from torch import Tensor, nn

from diffsampler.errors import check_count
from diffsampler.networks.tape import Tape, Taped


class FourierTimeEmbedding(nn.Module):
    """Sines and cosines of time, then two linear layers.

    Arguments:
        width: the size E of the embedding.
        frequencies: the number of frequencies, evenly spaced from 0.1 to 100 radians per unit time (as in PIS).
    """

    def __init__(self, width: int, frequencies: int = 64) -> None:
        super().__init__()
        check_count("frequencies", frequencies)
        self.register_buffer("frequencies", torch.linspace(0.1, 100, frequencies), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """The embedding of times t with shape (*), with shape (*, E)."""
        phase = t.unsqueeze(-1) * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos()], -1))


class TimeFunction(nn.Module):
    """A learned function of time alone, zero at initialisation.

    Arguments:
        out_dim: the dimension of its values.
        width: the size of the hidden layers.
        frequencies: of the time embedding.
    """

    def __init__(self, out_dim: int, width: int = 64, frequencies: int = 64) -> None:
        super().__init__()
        self.embedding = FourierTimeEmbedding(width, frequencies)
        self.output = nn.Linear(width, out_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, t: Tensor) -> Tensor:
        """With shape (*, out_dim), for times t with shape (*)."""
        return self.output(nn.functional.gelu(self.embedding(t)))


class TimePerceptron(Taped):
    """`depth` hidden layers over the sum of a linear map of features and the time embedding; zero at the start.

    Arguments:
        in_dim: the number of features.
        out_dim: the dimension of the output.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        frequencies: of the time embedding.
    """

    def __init__(self, in_dim: int, out_dim: int, width: int = 64, depth: int = 2, frequencies: int = 64) -> None:
        super().__init__()
        check_count("in_dim", in_dim)
        check_count("width", width)
        check_count("depth", depth)
        self.time = FourierTimeEmbedding(width, frequencies)
        self.input = nn.Linear(in_dim, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.output = nn.Linear(width, out_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, embedding: Tensor, x: Tensor) -> Tensor:
        """With shape (*, out_dim), for an embedding that broadcasts against (*, E) and features (*, in_dim)."""
        if self.tape is not None and (output := self.tape(self, embedding, x)) is not None:
            return output
        if embedding.ndim == 1:  # at a single time it is a bias among others
            hidden = nn.functional.linear(x, self.input.weight, self.input.bias + embedding)
        else:
            hidden = self.input(x) + embedding
        for layer in self.hidden:
            hidden = layer(nn.functional.gelu(hidden))
        return self.output(nn.functional.gelu(hidden))

    def new_tape(self, num_times: int, num_states: int) -> Tape | None:
        layers = [self.input, *self.hidden, self.output]
        if type(self).forward is not TimePerceptron.forward or not all(map(_is_plain, layers)):
            return None
        parameters = self.parameters_of_layers()
        return Tape(parameters[: len(layers)], parameters[len(layers) :], num_times, num_states)

    def parameters_of_layers(self) -> list[Tensor]:
        layers = [self.input, *self.hidden, self.output]
        return [*(layer.weight for layer in layers), *(layer.bias for layer in layers)]


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is W x + b and nothing else: no subclass, parametrisation, pruning or hook."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    own = {"weight", "bias"} == set(dict(layer.named_parameters(recurse=False)))
    return type(layer) is nn.Linear and own and not any(hooks)
