"""Control networks: the control u(t, x) of a process."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from diffsampler.density import Density
from diffsampler.networks.fourier import TimePerceptron
from diffsampler.processes import Process, as_process
from diffsampler.spaces import Space


class Control(nn.Module, ABC):
    """A control u(t, x), optionally a function of the target's score too.

    What depends on time alone goes into `embed`, which is called once for a whole grid; by default it is time itself.

    Attributes:
        uses_score: whether `forward` needs the score of the target at x.
        learns_width: whether `forward` returns the log of a factor on the step's width too.
    """

    uses_score: bool = False
    learns_width: bool = False

    @property
    def evaluations_per_state(self) -> int:
        """At how many points `forward` asks the density that it has from `walk_on`, for each state."""
        return 0

    def walk_on(self, density: Density) -> None:
        """Get to know the density of a sampler's states; what `forward` asks of it, who calls `forward` counts."""
        return None

    def embed(self, t: Tensor) -> Tensor:
        """What `forward` needs to know of times t with shape (T), with shape (T, E)."""
        return t.unsqueeze(-1)

    @abstractmethod
    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        """u, with shape (*, D), for an embedding that broadcasts against (*, E), and x and score with shape (*, D).

        With shape (*, 2 D), the second half is the log of a factor on the standard deviation of the step.
        """


class FourierMLP(Control):
    """A perceptron on x, as its space shows it, and Fourier features of time, zero at initialisation.

    References:
        Path Integral Sampler, Zhang & Chen, 2022, arXiv:2111.15141, appendix.

    Arguments:
        process: that it steers, or a space, or D.
        width: the size of each hidden layer.
        depth: the number of hidden layers.
        frequencies: the number of Fourier features.
    """

    def __init__(self, process: Process | Space | int, width: int = 64, depth: int = 2, frequencies: int = 64) -> None:
        super().__init__()
        self.space = as_process(process).space
        self.perceptron = TimePerceptron(self.space.num_features, self.space.dim, width, depth, frequencies)

    def embed(self, t: Tensor) -> Tensor:
        return self.perceptron.time(t)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        return self.perceptron(embedding, self.space.features(x))
