"""The control of a sampler of latents given data, which looks at the data once for all states of all paths."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from diffsampler.networks import Control
from diffsampler.networks.fourier import TimePerceptron
from diffsampler.networks.preconditioned import NARROW, size_of_control
from diffsampler.processes import Process
from examples.latent_variables.encoders import perceptron


class EncodedControl(Control):
    """u(t, z, x) and the log of a factor on each step's width, by a small perceptron on z beside an encoding of x.

    States are (z, x), as in any sampler of a family; or z alone, while the encodings are given by `given_encodings`.

    Arguments:
        process: that it steers.
        latent_dim, data_dim: of z and x.
        width: of the perceptron.
        encoder_width: of the encoder, whose hidden layers are those of `encoders.Encoder`.
    """

    learns_width = True
    bound = 3.0  # on the log of the factor

    def __init__(
        self, process: Process, latent_dim: int, data_dim: int, width: int = 64, encoder_width: int = 128
    ) -> None:
        super().__init__()
        self.sizes = [latent_dim, data_dim]
        self.encode = perceptron(data_dim, encoder_width, width)
        self.perceptron = TimePerceptron(latent_dim, 2 * latent_dim, width, depth=1)
        self._gaussian_control = process.gaussian_control
        self._encodings: Tensor | None = None

    @contextmanager
    def given_encodings(self, encodings: Tensor) -> Iterator[None]:
        """States are z alone within, with these encodings of x, one for each trajectory: (B, width)."""
        self._encodings = encodings
        try:
            yield
        finally:
            self._encodings = None

    def embed(self, t: Tensor) -> Tensor:
        size = size_of_control(self._gaussian_control, t, NARROW)[..., :1]  # the same for all coordinates
        return torch.cat([size, self.perceptron.time(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        size, time = embedding[..., :1], embedding[..., 1:]
        if self._encodings is not None:
            control, log_scale = self._steer(size, time + self._encodings, x)
            return torch.cat([control, log_scale], -1)
        z, data = x.split(self.sizes, -1)
        control, log_scale = self._steer(size, time + self.encode(data), z)
        still = torch.zeros_like(data)
        return torch.cat([control, still, log_scale, still], -1)

    def _steer(self, size: Tensor, hidden: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        control, raw = self.perceptron(hidden, z).chunk(2, -1)
        return size * control, self.bound * torch.tanh(raw / self.bound)
