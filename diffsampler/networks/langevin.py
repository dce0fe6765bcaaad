"""Langevin preconditioning: the target's score inside the control, around any control network."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import check_positive
from diffsampler.networks.control import Control
from diffsampler.networks.fourier import TimeFunction
from diffsampler.networks.gaussian_bridge import GaussianBridgeMLP
from diffsampler.networks.wrapper import ControlWrapper
from diffsampler.processes import Process


class LangevinControl(ControlWrapper):
    """u(t, x) = network(t, x) + gate(t) clip(score(x)), with a learned gate for each time.

    The clip belongs to the model, so densities and importance weights stay exact. It bounds each entry of the score;
    where the score is NaN (on the edge of a region of zero density, say) it counts as 0, and the sampler counts the
    event.

    References:
        Path Integral Sampler, Zhang & Chen, 2022, arXiv:2111.15141, section 4.
        Diffusion Generative Flow Samplers, Zhang et al., 2024, arXiv:2310.02679, appendix.

    Arguments:
        process: that it steers, or D.
        network: makes the wrapped control from the process.
        clip: bound on each entry of the score; positive.
        initial_gate: the gate at the target's end before training; it rises linearly from 0 at time 0.
    """

    uses_score = True

    def __init__(
        self,
        process: Process | int,
        network: Callable[[Process], Control] = GaussianBridgeMLP,
        clip: float = 100.0,
        initial_gate: float = 1.0,
    ) -> None:
        super().__init__(process, network)
        self.clip = check_positive("clip", clip)
        self.initial_gate = initial_gate
        self.gate = TimeFunction(1)

    def embed(self, t: Tensor) -> Tensor:
        gate = self.gate(t) + self.initial_gate * t.unsqueeze(-1)
        return torch.cat([gate, self.network.embed(t)], -1)

    def forward(self, embedding: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        gate, embedding = embedding.split([1, embedding.shape[-1] - 1], -1)
        tamed = score.clamp(-self.clip, self.clip).nan_to_num(0.0)
        return torch.addcmul(self.network(embedding, x, score), gate, tamed)
