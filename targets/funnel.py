"""Neal's funnel."""

import math

import torch
from torch import Tensor

from diffsampler.errors import check_count, check_positive
from diffsampler.target import Target

__all__ = ["Funnel"]


class Funnel(Target):
    """x_0 ~ N(0, scale^2) and x_i | x_0 ~ N(0, exp(x_0)), i = 1 .. D-1, normalised; log Z = 0.

    Neal, Slice sampling, 2003, https://doi.org/10.1214/aos/1056562461. Its `scale` is 3; some papers on diffusion
    samplers report the much easier scale 1 under the same name.

    Arguments:
        dim: the dimension D, at least 2.
        scale: the standard deviation of x_0: 3 for the hard funnel, 1 for the easy one.
    """

    log_z = 0.0
    plot_range = (-10.0, 10.0)

    def __init__(self, dim: int = 10, scale: float = 3.0) -> None:
        check_count("dim", dim, minimum=2)
        super().__init__(dim)
        self.scale = float(check_positive("scale", scale))
        self._log_normaliser = -math.log(self.scale) - 0.5 * dim * math.log(2 * math.pi)
        # no constants to hold: it tells `sample` the device
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    def log_prob(self, x: Tensor) -> Tensor:
        neck, rest = x[..., 0], x[..., 1:]
        return self._value(neck, (rest * rest).sum(-1) * torch.exp(-neck))

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        neck, rest = x[..., 0], x[..., 1:]
        precision = torch.exp(-neck)
        score = x * -precision.unsqueeze(-1)
        norm = (rest * rest).sum(-1) * precision
        score[..., 0] = neck * -(self.scale**-2) + 0.5 * norm - 0.5 * (self.dim - 1)
        return self._value(neck, norm), score

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        dtype, device = torch.get_default_dtype(), self._anchor.device
        x = torch.randn(n, self.dim, generator=generator, device=device, dtype=dtype)
        x[:, 0] *= self.scale
        x[:, 1:] *= torch.exp(0.5 * x[:, :1])
        return x

    def _value(self, neck: Tensor, norm: Tensor) -> Tensor:
        slope = -0.5 * (self.dim - 1)
        return (neck * (-0.5 * self.scale**-2) + slope) * neck - 0.5 * norm + self._log_normaliser
