"""A perceptron whose output is scaled to the size that a control has at every time."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.networks.control import FourierMLP
from diffsampler.networks.reals import on_reals
from diffsampler.processes import Process

# Of the target's variance along its narrowest mode, in units of the process: narrower ones are for training to learn.
NARROW = 0.01


def size_of_control(
    gaussian_control: Callable[[Tensor], tuple[Tensor, Tensor]], t: Tensor, narrow: float | Tensor = NARROW
) -> Tensor:
    """(p / (1 - q + narrow))^(1/2), with shape (*, 1) or (*, D), of a process's `gaussian_control` at times t, (*)."""
    p, q = gaussian_control(t.unsqueeze(-1))
    return (p / (1 - q + narrow)).sqrt().to(t.dtype)


class PreconditionedMLP(FourierMLP):
    """u(t, x) = (p / (1 - q + 0.01))^(1/2) m(t, x), with m a perceptron as in `FourierMLP`.

    p and q are the process's (`Process.gaussian_control`). To a target of narrow modes the control grows as
    (1 - q)^(-1/2) towards the end, until the remaining noise is as narrow as they are. A perceptron whose output stays
    of order 1 learns it several times faster than one that must learn this growth, too. The factor is that of
    `VariancePreserving` and `PinnedBrownian`; for other processes it is no more than a guess.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models, Karras et al., 2022, arXiv:2206.00364,
            section 5: why the outputs of a denoiser are scaled.

    Arguments:
        process, width, depth, frequencies: as in `FourierMLP`.
    """

    def __init__(self, process: Process | int, width: int = 64, depth: int = 2, frequencies: int = 64) -> None:
        process = on_reals(type(self).__name__, process)
        super().__init__(process, width, depth, frequencies)
        self.dim = process.space.dim
        # In checkpoints: those of `FourierMLP` look the same otherwise, and are another function.
        self.register_buffer("narrow", torch.tensor(NARROW))
        self._gaussian_control = process.gaussian_control

    def embed(self, t: Tensor) -> Tensor:
        size = size_of_control(self._gaussian_control, t, self.narrow).expand(*t.shape, self.dim)
        return torch.cat([size, super().embed(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        return embedding[..., : self.dim] * super().forward(embedding[..., self.dim :], x)
