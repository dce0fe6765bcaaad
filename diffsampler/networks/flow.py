"""Flow networks: log F(t, x), the log state flow at interior times."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from diffsampler.networks.fourier import TimePerceptron
from diffsampler.processes import Process, as_process
from diffsampler.spaces import Space


class StateFlow(nn.Module, ABC):
    """The log state flow log F(t, x) at interior times; at both ends the flow is known and no network is asked.

    Attributes:
        uses_interpolation: whether `forward` needs the interpolation between prior and target (forward-looking
            flows).
    """

    uses_interpolation: bool = False

    @property
    def is_untouched(self) -> bool:
        """Whether it is known that no training has changed it."""
        return False

    def embed(self, t: Tensor) -> Tensor:
        """What `forward` needs to know of times t with shape (T), with shape (T, E)."""
        return t.unsqueeze(-1)

    @abstractmethod
    def forward(self, embedding: Tensor, x: Tensor, interpolation: Tensor | None = None) -> Tensor:
        """log F, with shape (*), for an embedding that broadcasts against (*, E), x with shape (*, D) and an
        interpolation with shape (*).
        """


class FourierFlow(StateFlow):
    """A perceptron on x, as its space shows it, and Fourier features of time, zero at initialisation.

    Arguments:
        process: whose states it is a function of, or a space, or D.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        frequencies: the number of Fourier features.
    """

    def __init__(self, process: Process | Space | int, width: int = 64, depth: int = 2, frequencies: int = 64) -> None:
        super().__init__()
        self.space = as_process(process).space
        self.perceptron = TimePerceptron(self.space.num_features, 1, width, depth, frequencies)

    def embed(self, t: Tensor) -> Tensor:
        return self.perceptron.time(t)

    def forward(self, embedding: Tensor, x: Tensor, interpolation: Tensor | None = None) -> Tensor:
        return self.perceptron(embedding, self.space.features(x)).squeeze(-1)

    @property
    def is_untouched(self) -> bool:
        output = self.perceptron.output
        return not (output.weight.any() or output.bias.any())
