"""Coordinates: an affine map x = loc + matrix z between where the sampler walks (z) and where the target lives (x).

A sampler that walks in coordinates where the target is centred and of unit scale needs no tuning of sigma or clipping.
The normalising constant does not change: the log-density in z carries log |det matrix|.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.estimators import Annealed, GaussianComponents, LogZEstimate, reference
from diffsampler.estimators.reference import more_draws
from diffsampler.streams import new_generator
from diffsampler.target import CountedTarget, Target, differ, in_its_dtype

__all__ = ["AffineCoordinates", "LaplaceCoordinates", "ScaledCoordinates", "SearchedCoordinates", "TargetInCoordinates"]

NUM_REMEMBERED = 16


class AffineCoordinates(nn.Module):
    """x = loc + matrix z.

    Arguments:
        loc: with shape (D).
        matrix: invertible, with shape (D, D).

    Attributes:
        log_det: log |det matrix|, with shape ().
        num_target_evaluations: what finding the coordinates cost.
        precise: whether the target is evaluated in float64 whatever the sampler's dtype: far from the origin, or with
            scales that differ much, float32 cannot tell the points apart.
    """

    precise: bool = False

    def __init__(self, loc: Tensor, matrix: Tensor) -> None:
        super().__init__()
        if loc.ndim != 1 or matrix.shape != (*loc.shape, *loc.shape):
            raise InputError(
                f"loc and matrix must have shapes (D) and (D, D), got {tuple(loc.shape)} and {tuple(matrix.shape)}."
            )
        self.register_buffer("loc", loc.double())
        self.register_buffer("matrix", matrix.double())
        self.register_buffer("log_det", torch.linalg.slogdet(self.matrix).logabsdet)
        self.num_target_evaluations = 0
        if not self.log_det.isfinite():
            raise InputError("matrix must be invertible, got a singular one.")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AffineCoordinates":
        # Follows the sampler to its device, not to its dtype.
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            if buffer.is_floating_point():
                self._buffers[name] = buffer.double()
        return self

    def forward(self, z: Tensor) -> Tensor:
        """x, with shape (*, D), for z with shape (*, D)."""
        if self.precise and z.dtype != torch.float64:
            return self(z.double()).to(z.dtype)
        return torch.addmm(self.loc.to(z.dtype), z.reshape(-1, z.shape[-1]), self.matrix.T.to(z.dtype)).view_as(z)

    def inverse(self, x: Tensor) -> Tensor:
        """z, with shape (*, D), for x with shape (*, D)."""
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
        evaluations, counter = 0, CountedTarget(target)
        x = torch.zeros(target.dim, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [x], max_iter=1000, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            nonlocal evaluations
            evaluations += 1
            optimizer.zero_grad()
            # As a batch of one: a target need not work on a bare point.
            energy = -counter.log_prob(x[None])[0]
            energy.backward()
            return energy

        with torch.enable_grad():
            optimizer.step(closure)
            hessian = torch.autograd.functional.hessian(lambda point: -counter.log_prob(point[None])[0], x.detach())
        factor, info = torch.linalg.cholesky_ex(hessian)
        if int(info) or not x.isfinite().all():
            raise InputError(
                f"LaplaceCoordinates found no strict maximum of {type(target).__name__}.log_prob from the origin; "
                "use AffineCoordinates, or none."
            )
        identity = torch.eye(target.dim, dtype=torch.float64)
        super().__init__(x.detach(), scale * torch.linalg.solve_triangular(factor.T, identity, upper=True))
        self.num_target_evaluations = evaluations + target.dim


class SearchedCoordinates(AffineCoordinates):
    """The coordinates in which the target has mean 0 and covariance I, as far as a search can tell.

    Until `search` they change nothing. The draws that they were found by are kept, in checkpoints too: training can
    start from them.

    Arguments:
        target: its dimension counts.
        num_points: how many draws are kept.

    Attributes:
        reference: what the search estimated log Z to be, None before it.
    """

    precise = True

    def __init__(self, target: Target, num_points: int = 10_000) -> None:
        super().__init__(torch.zeros(target.dim), torch.eye(target.dim))
        self.register_buffer("points", torch.zeros(check_count("num_points", num_points), target.dim).double())
        self.reference: LogZEstimate | None = None
        self._log_prob_then: list[float] | None = None

    @property
    def is_found(self) -> bool:
        """Whether `search` was called, on this object or on that of a checkpoint."""
        return self.reference is not None

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the tensors."""
        reference = None if self.reference is None else asdict(self.reference)
        return {
            "reference": reference,
            "num_target_evaluations": self.num_target_evaluations,
            "log_prob_then": self._log_prob_then,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_extra_state` gave."""
        self.reference = None if state["reference"] is None else LogZEstimate(**state["reference"])
        self.num_target_evaluations = state["num_target_evaluations"]
        self._log_prob_then = state.get("log_prob_then")

    @torch.no_grad()
    def is_outdated(self, counter: CountedTarget) -> bool:
        """Whether the target, in its own coordinates, gives other values at points of the search than it did then.

        Data that have changed make it another target, for which the old reference says nothing.
        """
        if self._log_prob_then is None:
            return False
        now = counter.log_prob(self.points[-NUM_REMEMBERED:]).cpu()
        # What other machines round otherwise is no change.
        return differ(now, torch.tensor(self._log_prob_then, dtype=torch.float64), 1e-3, 1e-5)

    @torch.no_grad()
    def search(
        self, counter: CountedTarget, seed: int = 0, progress: Callable[[float], None] | None = None
    ) -> Annealed:
        """Find the coordinates by `diffsampler.estimators.reference`, which is returned.

        Arguments:
            counter: the target in its own coordinates.
            seed: of the search.
            progress: is told the fraction of the work that is done, now and then.
        """
        generator = new_generator("search", seed, device=self.loc.device)
        result = reference(counter, generator=generator, progress=progress)
        self.points.copy_(more_draws(counter, result, len(self.points), generator))
        fitted = GaussianComponents.fitted_to(self.points)
        self.loc.copy_(fitted.loc[0])
        self.matrix.copy_(fitted.factor[0])
        self.log_det.copy_(torch.linalg.slogdet(self.matrix).logabsdet)
        self.reference = result.estimate
        self._log_prob_then = counter.log_prob(self.points[-NUM_REMEMBERED:]).tolist()
        self.num_target_evaluations = counter.num_evaluations
        return result


class TargetInCoordinates(Target):
    """A target as a density of z: log R(loc + matrix z) + log |det matrix|; same normalising constant."""

    def __init__(self, target: Target, coordinates: AffineCoordinates) -> None:
        if coordinates.loc.shape != (target.dim,):
            raise InputError(
                f"coordinates must have the target's dimension {target.dim}, got {coordinates.loc.shape[0]}."
            )
        super().__init__(target.dim)
        self.target = target
        self.coordinates = coordinates
        self.log_z = target.log_z
        self.differentiable = target.differentiable

    def log_prob(self, x: Tensor) -> Tensor:
        z = self._in_precision(x)
        log_prob = in_its_dtype(self.target, self.coordinates(z), self.target.log_prob)
        return log_prob + self.coordinates.log_det  # not in the dtype of x: float32 may round away what matters

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self._in_precision(x)
        log_prob, score = in_its_dtype(self.target, self.coordinates(z), self.target.log_prob_and_score)
        log_prob = log_prob + self.coordinates.log_det
        return log_prob, (score.to(z.dtype) @ self.coordinates.matrix.to(z.dtype)).to(x.dtype)

    def _in_precision(self, x: Tensor) -> Tensor:
        return x.double() if self.coordinates.precise else x
