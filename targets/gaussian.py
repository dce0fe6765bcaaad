"""A Gaussian with any mean and covariance: the analytic oracle."""

import math

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.target import Target
from targets._inputs import to_tensor

__all__ = ["Gaussian"]


class Gaussian(Target):
    """The normalised Gaussian N(mean, covariance) on R^D; log Z = 0.

    log R(x) = -|W (x - mean)|^2 / 2 - log det(covariance) / 2 - D log(2 pi) / 2 with W the inverse of the covariance's
    Cholesky factor.

    Arguments:
        mean: the mean, D numbers.
        covariance: one number (the variance of every coordinate), D numbers (their variances) or a symmetric positive
            definite D x D matrix.
    """

    log_z = 0.0

    def __init__(
        self,
        mean: list[float] | Tensor,
        covariance: float | list[float] | list[list[float]] | Tensor = 1.0,
    ) -> None:
        mean = to_tensor("mean", mean, [1], "a list of numbers")
        dim = len(mean)
        super().__init__(dim)
        accepted = f"one number, {dim} numbers or a {dim} x {dim} matrix"
        covariance = to_tensor("covariance", covariance, [0, 1, 2], accepted)
        if covariance.ndim and any(size != dim for size in covariance.shape):
            raise InputError(f"covariance must be {accepted}, got shape {tuple(covariance.shape)}.")
        if covariance.ndim < 2:
            if not (covariance > 0).all():
                raise InputError(f"covariance must have positive variances, got {covariance.tolist()}.")
            factor = covariance.sqrt().expand(dim).clone()
            whitening, scales = 1 / factor, factor
        else:
            factor = _factorise(covariance)
            whitening = torch.linalg.solve_triangular(factor, torch.eye(dim, dtype=torch.float64), upper=False)
            scales = factor.diagonal()
        self._log_normaliser = -float(scales.log().sum()) - 0.5 * dim * math.log(2 * math.pi)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("factor", factor, persistent=False)
        self.register_buffer("whitening", whitening, persistent=False)
        reach = 4 * torch.linalg.vector_norm(factor, dim=-1) if factor.ndim == 2 else 4 * factor
        self.plot_range = (float((mean - reach).min()), float((mean + reach).max()))

    def log_prob(self, x: Tensor) -> Tensor:
        return self._value(self._whiten(x, self.whitening.to(x.dtype)))

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        whitening = self.whitening.to(x.dtype)
        z = self._whiten(x, whitening)
        score = (z @ whitening if whitening.ndim == 2 else z * whitening).neg_()
        return self._value(z), score

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        dtype, device = torch.get_default_dtype(), self.mean.device
        noise = torch.randn(n, self.dim, generator=generator, device=device, dtype=dtype)
        factor = self.factor.to(dtype)
        return self.mean.to(dtype) + (noise @ factor.T if factor.ndim == 2 else noise * factor)

    def _whiten(self, x: Tensor, whitening: Tensor) -> Tensor:
        centred = x - self.mean.to(x.dtype)
        return centred @ whitening.T if whitening.ndim == 2 else centred * whitening

    def _value(self, z: Tensor) -> Tensor:
        return (z * z).sum(-1) * -0.5 + self._log_normaliser


def _factorise(covariance: Tensor) -> Tensor:
    if not torch.allclose(covariance, covariance.T, rtol=1e-6, atol=0):
        raise InputError("covariance must be symmetric, got a matrix that is not.")
    factor, info = torch.linalg.cholesky_ex(covariance)
    if info:
        lowest = float(torch.linalg.eigvalsh(covariance)[0])
        raise InputError(f"covariance must be positive definite, got a matrix with lowest eigenvalue {lowest:.3g}.")
    return factor
