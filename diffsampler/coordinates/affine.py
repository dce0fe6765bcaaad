"""Coordinates: an affine map x = loc + matrix z between where the sampler walks (z) and where the target lives (x).

A sampler that walks in coordinates where the target is centred and of unit scale needs no tuning of sigma or clipping.
The normalising constant does not change: the log-density in z carries log |det matrix|.
"""

import torch
from torch import Tensor

from diffsampler.coordinates.base import DoubleCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError, check_positive
from diffsampler.target import Target


class AffineCoordinates(DoubleCoordinates):
    """x = loc + matrix z.

    Arguments:
        loc: with shape (D).
        matrix: invertible, with shape (D, D).

    Attributes:
        log_det: log |det matrix|, with shape ().
    """

    def __init__(self, loc: Tensor, matrix: Tensor) -> None:
        if loc.ndim != 1 or matrix.shape != (*loc.shape, *loc.shape):
            raise InputError(
                f"loc and matrix must have shapes (D) and (D, D), got {tuple(loc.shape)} and {tuple(matrix.shape)}."
            )
        super().__init__(len(loc))
        self.register_buffer("loc", loc.double())
        self.register_buffer("matrix", matrix.double())
        self.register_buffer("log_det", torch.linalg.slogdet(self.matrix).logabsdet)
        if not self.log_det.isfinite():
            raise InputError("matrix must be invertible, got a singular one.")

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        exactly = z.double() if self.precise else z
        rows, loc, matrix = exactly.reshape(-1, z.shape[-1]), self.loc.to(exactly.dtype), self.matrix.to(exactly.dtype)
        return torch.addmm(loc, rows, matrix.T).to(z.dtype).view_as(z), self.log_det.expand(z.shape[:-1])

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        return score @ self.matrix.to(z.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        return torch.linalg.solve(self.matrix, (x.double() - self.loc).unsqueeze(-1)).squeeze(-1).to(x.dtype)


class ScaledCoordinates(AffineCoordinates):
    """x = loc + scale z: the same unit for every coordinate.

    Arguments:
        target: its dimension counts.
        scale: the unit of z: positive.
        loc: the origin of z, in every coordinate.
    """

    def __init__(self, target: Target, scale: float = 1.0, loc: float = 0.0) -> None:
        check_positive("scale", scale)
        identity = torch.eye(target.dim, dtype=torch.float64)
        super().__init__(torch.full((target.dim,), loc, dtype=torch.float64), scale * identity)
        self.scale = float(scale)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.add(self.loc.to(z.dtype), z, alpha=self.scale), self.log_det.expand(z.shape[:-1])

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        return score * self.scale


class LaplaceCoordinates(AffineCoordinates):
    """The coordinates in which the target's Laplace approximation at its mode is N(0, I).

    For targets with one mode, such as posteriors. The mode is sought from the origin by L-BFGS in float64, the
    curvature is the Hessian of `log_prob` there, by autograd.

    Arguments:
        target: twice differentiable.
        scale: widens the unit of z: positive; 1 is the Laplace approximation's own.

    Raises:
        InputError: if the search ends where `log_prob` has no strict maximum.
    """

    def __init__(self, target: Target, scale: float = 1.0) -> None:
        check_positive("scale", scale)
        counter = CountedTarget(target)
        x = torch.zeros(target.dim, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [x], max_iter=1000, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            # As a batch of one: a target need not work on a bare point.
            energy = -counter.log_prob(x[None])[0]
            energy.backward()
            return energy

        with torch.enable_grad():
            optimizer.step(closure)
            num_evaluations = counter.num_evaluations
            hessian = torch.autograd.functional.hessian(lambda point: -counter.log_prob(point[None])[0], x.detach())
        factor, info = torch.linalg.cholesky_ex(hessian)
        if int(info) or not x.isfinite().all():
            raise InputError(
                f"LaplaceCoordinates found no strict maximum of {type(target).__name__}.log_prob from the origin; "
                "use AffineCoordinates, or none."
            )
        identity = torch.eye(target.dim, dtype=torch.float64)
        super().__init__(x.detach(), scale * torch.linalg.solve_triangular(factor.T, identity, upper=True))
        self.num_target_evaluations = num_evaluations + target.dim
