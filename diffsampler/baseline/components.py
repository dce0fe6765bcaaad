"""Gaussian mixtures with full covariances: where annealed estimates start from."""

import math

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.spaces.kernels import HALF_LOG_TWO_PI, noise_like

NEXT_TO_NOTHING = 1e-6  # of the mass
CHUNK = 1 << 17  # numbers
SAME = 1.0  # standard deviations
MUCH_HIGHER, LOG_NARROWER = 3.0, math.log(3.0)  # nats; nats of width a dimension


def rows_at_once(like: Tensor) -> int:
    """Of points, so that what is held for each of K components, with the shape (K, D) of `like`, stays in a cache."""
    return max(1, CHUNK // like.numel())


def cholesky(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Lower factors of matrices with shape (K, D, D), and which of them are usable, with shape (K)."""
    factor, info = torch.linalg.cholesky_ex(covariance)
    return factor, (info == 0) & factor.isfinite().all(-1).all(-1)


class GaussianComponents:
    """sum_k w_k N(loc_k, factor_k factor_k^T), in float64.

    Arguments:
        loc: with shape (K, D).
        factor: invertible and lower triangular, with shape (K, D, D).
        weights: positive, with shape (K); by default equal.

    Raises:
        InputError: if shapes do not match or something is not finite.
    """

    def __init__(self, loc: Tensor, factor: Tensor, weights: Tensor | None = None) -> None:
        if loc.ndim != 2 or factor.shape != (*loc.shape, loc.shape[1]):
            raise InputError(
                f"loc and factor must have shapes (K, D) and (K, D, D), got {tuple(loc.shape)}, {tuple(factor.shape)}."
            )
        weights = torch.ones(len(loc), device=loc.device) if weights is None else weights
        self.loc, self.factor = loc.double(), factor.double()
        self.log_weight = (weights / weights.sum()).to(self.loc).log()
        self.log_det = self.factor.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        eye = torch.eye(loc.shape[1], dtype=self.loc.dtype, device=self.loc.device)
        self.inverse = torch.linalg.solve_triangular(self.factor, eye, upper=False)
        if not (self.loc.isfinite().all() and self.log_det.isfinite().all() and self.log_weight.isfinite().all()):
            raise InputError("loc, factor and weights must be finite, factor invertible and weights positive.")

    def widened(self, factor: float) -> "GaussianComponents":
        """The same means and weights, with standard deviations `factor` times as large."""
        return GaussianComponents(self.loc, factor * self.factor, self.log_weight.exp())

    def mixed_with(self, other: "GaussianComponents", share: float) -> "GaussianComponents":
        """A mixture that draws from the other one with probability `share`."""
        return GaussianComponents(
            torch.cat([self.loc, other.loc]),
            torch.cat([self.factor, other.factor]),
            torch.cat([(1 - share) * self.log_weight.exp(), share * other.log_weight.exp()]),
        )

    def distance(self, x: Tensor) -> Tensor:
        """From each point, with shape (n, D), to the nearest mean, in its component's standard deviations: (n)."""
        return torch.cat([self._log_joint(rows)[0].norm(dim=-1).amin(0) for rows in self._split(x)])

    def accounts_for(self, other: "GaussianComponents", height: Tensor, other_height: Tensor) -> Tensor:
        """Which of the K components are the mode that each of n others is too, with shape (n, K).

        Those near whose mean it lies, unless it is much higher and narrower, by the target's log_prob at the means of
        either, with shapes (K) and (n): then it is a mode within a broader one.
        """
        near = self._log_joint(other.loc)[0].norm(dim=-1).T < SAME
        higher = other_height.unsqueeze(-1) - height > MUCH_HIGHER
        narrower = self.log_det - other.log_det.unsqueeze(-1) > self.loc.shape[1] * LOG_NARROWER
        return near & ~(higher & narrower)

    def to_dict(self) -> dict[str, Tensor]:
        """The arguments that make it again."""
        return {"loc": self.loc, "factor": self.factor, "weights": self.log_weight.exp()}

    @classmethod
    def around(cls, x: Tensor, label: Tensor, num_iterations: int = 5) -> "GaussianComponents | None":
        """Gaussians fitted to points x, with shape (n, D), by EM from labels with shape (n); None if none has enough.

        Labels of too few points are left out.
        """
        enough = 2 * x.shape[1] + 5
        groups = [label == k for k in label.unique().tolist() if int((label == k).sum()) >= enough]
        if not groups:
            return None
        share = torch.stack(groups).to(x)
        for _ in range(num_iterations):
            fits = [cls.fitted_to(x, weight) for weight in share]
            found = cls(
                torch.cat([fit.loc for fit in fits]), torch.cat([fit.factor for fit in fits]), share.sum(1) + 1e-9
            )
            share = found._log_joint(x)[1].softmax(0)
            share = share[share.sum(1) >= enough]
        return found

    @classmethod
    def fitted_to(cls, x: Tensor, weight: Tensor | None = None, widening: float = 1.0) -> "GaussianComponents":
        """One component with the mean of points x, with shape (n, D), and `widening` times their spread.

        With fewer than 2 D points the covariance shrinks half-way to its diagonal: it stays invertible. With more it
        does not: a thousandth of the diagonal would drown the narrow directions of an ill-conditioned one.
        """
        x = x.double()
        weight = torch.ones(len(x), dtype=x.dtype, device=x.device) if weight is None else weight.to(x)
        weight = weight / weight.sum()
        loc = weight @ x
        residual = (x - loc) * weight.sqrt().unsqueeze(-1)
        covariance = residual.T @ residual
        shrinkage = 0.5 if 1 / weight.square().sum() < 2 * x.shape[1] else 0.0
        variance = covariance.diagonal()
        floor = (
            (torch.finfo(x.dtype).eps * loc).square() + torch.finfo(x.dtype).eps * variance + torch.finfo(x.dtype).tiny
        )
        covariance = (1 - shrinkage) * covariance + torch.diag(shrinkage * variance + floor)
        # Of the correlation matrix: coordinates may differ by many orders of magnitude.
        std = covariance.diagonal().sqrt()
        correlation = covariance / torch.outer(std, std)
        eye = torch.eye(len(std), dtype=x.dtype, device=x.device)
        # Few distinct points among many repeated ones: as little shrinkage as makes it invertible.
        for more in (0.0, 1e-12, 1e-9, 1e-6, 1e-3, 0.1, 1.0):
            factor, info = torch.linalg.cholesky_ex(torch.lerp(correlation, eye, more))
            if not info:
                break
        return cls(loc[None], widening * std.unsqueeze(-1) * factor[None])

    def tilted(self, x: Tensor, log_weight: Tensor) -> "GaussianComponents":
        """What they are after one step of EM to weighted points x, with shapes (n, D) and (n).

        Components that hold next to nothing are left out; those that hold too few points keep their shape.
        """
        x, weight = x.double(), (log_weight - log_weight.max()).exp()
        share = self._log_joint(x)[1].softmax(0) * (weight / weight.sum())
        mass, enough = share.sum(1), 10 * (x.shape[1] + 1)
        kept = (mass > NEXT_TO_NOTHING).nonzero().squeeze(-1).tolist()
        is_known = (mass.square() / share.square().sum(1) >= enough).tolist()
        fits = {k: self.fitted_to(x, share[k]) for k in kept if is_known[k]}
        return GaussianComponents(
            torch.stack([fits[k].loc[0] if k in fits else self.loc[k] for k in kept]),
            torch.stack([fits[k].factor[0] if k in fits else self.factor[k] for k in kept]),
            mass[kept],
        )

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, with shape (n, D)."""
        component = torch.multinomial(self.log_weight.exp(), n, replacement=True, generator=generator)
        noise = noise_like(self.loc[component], generator)
        x = torch.empty_like(noise)
        for k in range(len(self.loc)):
            mine = component == k
            x[mine] = self.loc[k] + noise[mine] @ self.factor[k].T
        return x

    def units(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """The units of moves among weighted points, with shape (n, D): a root of their covariance, (D, D)."""
        return GaussianComponents.fitted_to(x, weight).factor[0]

    @property
    def centre(self) -> Tensor:
        """A point of its support, with shape (D)."""
        return self.loc[0]

    def walk(self, x: Tensor, angle: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A move that leaves the mixture unchanged: within a component that x may come from, by `angle`, (n)."""
        share = self._log_joint(x)[1].softmax(0)
        label = torch.multinomial(share.T, 1, generator=generator).squeeze(-1)
        loc, turned = self.loc[label], (self.factor[label] @ noise_like(x, generator).unsqueeze(-1)).squeeze(-1)
        return loc + angle.cos().unsqueeze(-1) * (x - loc) + angle.sin().unsqueeze(-1) * turned

    def label(self, x: Tensor) -> Tensor:
        """The component that each point belongs to most likely, with shape (n)."""
        return torch.cat([self._log_joint(rows)[1].argmax(0) for rows in self._split(x)])

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density, with shape (n), for x with shape (n, D)."""
        return torch.cat([self._log_joint(rows)[1].logsumexp(0) for rows in self._split(x)])

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density, with shape (n), and its gradient, for x with shape (n, D)."""
        log_probs, scores = zip(*map(self._log_prob_and_score, self._split(x)), strict=True)
        return torch.cat(log_probs), torch.cat(scores)

    def _log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, joint = self._log_joint(x)
        pulled = (joint.softmax(0).unsqueeze(-1) * z).movedim(0, 1).flatten(1)
        return joint.logsumexp(0), -pulled @ self.inverse.flatten(0, 1)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(rows_at_once(self.loc))

    def _log_joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened residuals with shape (K, n, D), and log of weight and density of each component, (K, n)."""
        z = (x - self.loc.unsqueeze(1)) @ self.inverse.mT
        joint = (self.log_weight - self.log_det).unsqueeze(-1) - 0.5 * z.square().sum(-1)
        return z, joint - self.loc.shape[1] * HALF_LOG_TWO_PI
