"""Maps of vectors onto simplexes, triangular and positive definite matrices.

Of the matrices torch has no Jacobians; of simplexes it stops where rounding does, and densities then end nowhere.
"""

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torch.nn.functional import logsigmoid, pad


class LowerCholeskyTransform(Transform):
    """n (n + 1) / 2 numbers onto lower triangular matrices, the exponential of the first n on the diagonal."""

    domain = constraints.real_vector
    codomain = constraints.lower_cholesky
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        n = _size(x.shape[-1])
        rows, columns = torch.tril_indices(n, n, -1, device=x.device)
        matrix = torch.diag_embed(x[..., :n].exp())
        matrix[..., rows, columns] = x[..., n:]
        return matrix

    def _inverse(self, y: Tensor) -> Tensor:
        rows, columns = torch.tril_indices(y.shape[-1], y.shape[-1], -1, device=y.device)
        return torch.cat([y.diagonal(dim1=-2, dim2=-1).log(), y[..., rows, columns]], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x[..., : y.shape[-1]].sum(-1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n = _size(shape[-1])
        return (*shape[:-1], n, n)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError("matrices must be square")
        return (*shape[:-2], shape[-1] * (shape[-1] + 1) // 2)


class PositiveDefiniteTransform(LowerCholeskyTransform):
    """The same onto L L^T."""

    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = super()._call(x)
        return factor @ factor.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return super()._inverse(torch.linalg.cholesky(y))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # Of L to its square, 2^n prod_i L_ii^(n + 1 - i), i from 1.
        n = y.shape[-1]
        powers = torch.arange(n, 0, -1, dtype=x.dtype, device=x.device)
        return n * math.log(2) + ((powers + 1) * x[..., :n]).sum(-1)


class SimplexTransform(Transform):
    """K - 1 numbers onto K shares: each says by a logistic function which part of what is left the next one gets.

    Zeros become equal shares. The same as torch's and Stan's stick breaking, with logarithms that do not end.
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        log_taken, log_left = self._log_shares(x)
        log_share = pad(log_taken, (0, 1)) + pad(log_left.cumsum(-1), (1, 0))
        return log_share.exp().clamp(min=torch.finfo(x.dtype).tiny)

    def _inverse(self, y: Tensor) -> Tensor:
        left = y.flip(-1).cumsum(-1).flip(-1)[..., 1:]  # of sums from the end: 1 - cumsum cancels
        return y[..., :-1].log() - left.log() + self._log_parts(y[..., 1:])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        log_taken, log_left = self._log_shares(x)
        return (log_taken + log_left.cumsum(-1)).sum(-1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape:
            raise ValueError("a simplex is a vector")
        return (*shape[:-1], shape[-1] - 1)

    def _log_shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logs of what each takes of what is left, and of what it leaves."""
        x = x - self._log_parts(x)
        return logsigmoid(x), logsigmoid(-x)

    def _log_parts(self, x: Tensor) -> Tensor:
        return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device).log()


BY_VECTOR: dict[type, type[Transform]] = {
    type(constraints.simplex): SimplexTransform,
    type(constraints.lower_cholesky): LowerCholeskyTransform,
    type(constraints.positive_definite): PositiveDefiniteTransform,
}


def _size(num_free: int) -> int:
    return (math.isqrt(8 * num_free + 1) - 1) // 2
