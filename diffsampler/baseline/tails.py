"""Heavy tails: z is normal, its image falls as a power."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

DEGREES = (1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0)
NUM_SCALINGS = 8
GAIN = 0.01  # nats a point that a tail must bring


@dataclass(frozen=True)
class Tail:
    """y = scale z (a (exp(q) - 1) / (a q))^(1/2), with q = r^2 / a: far out, normal r become Student's with a degrees.

    References:
        Bounds on normal approximations to Student's and the chi-square distributions, Wallace, 1959: r^2 = a log(1 +
        t^2 / a) is nearly normal for Student's t.

    Attributes:
        degrees: a, positive.
        scale: positive.
        radial: whether r is |z|, as for a multivariate Student t, or each |z_i|, as for a product of them.
    """

    degrees: float
    scale: float
    radial: bool

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """y and log |det dy/dz|, with shapes (n, D) and (n), for z with shape (n, D)."""
        q = self._squares(z) / self.degrees
        growth = torch.where(q > 1e-6, torch.expm1(q) / q.clamp(min=1e-6), 1 + 0.5 * q)
        return self.scale * z * growth.sqrt(), self._log_det(q, growth.log(), z.shape[1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dy/dz|, with shapes (n, D) and (n), for y with shape (n, D)."""
        y = y / self.scale
        stretched = self._squares(y) / self.degrees
        q = torch.log1p(stretched)
        growth = torch.where(q > 1e-6, stretched / q.clamp(min=1e-6), 1 + 0.5 * q)
        return y / growth.sqrt(), self._log_det(q, growth.log(), y.shape[1])

    def _squares(self, z: Tensor) -> Tensor:
        return z.square().sum(-1, keepdim=True) if self.radial else z.square()

    def _log_det(self, q: Tensor, log_growth: Tensor, dim: int) -> Tensor:
        log_scale = dim * math.log(self.scale)
        if self.radial:
            return (q + 0.5 * (dim - 2) * log_growth).squeeze(-1) + log_scale
        return (q - 0.5 * log_growth).sum(-1) + log_scale


def fit_tail(y: Tensor, weight: Tensor) -> Tail | None:
    """The tail under which points y, with shape (n, D), come from the most nearly normal z; None if they have none."""
    best, found = float(weight @ (-0.5 * y.square().sum(-1))) + GAIN, None
    for degrees in DEGREES:
        for radial in (True, False) if y.shape[1] > 1 else (True,):
            tail = Tail(degrees, 1.0, radial)
            for _ in range(NUM_SCALINGS):  # until z has unit variance
                variance = max(float(weight @ tail.inverse(y)[0].square().mean(-1)), 1e-300)
                tail = Tail(degrees, tail.scale * variance**0.5, radial)
            z, log_det = tail.inverse(y)
            score = float(weight @ (-0.5 * z.square().sum(-1) - log_det))
            if score > best:
                best, found = score, tail
    return found
