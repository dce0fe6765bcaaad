"""Quasi-Newton paths side by side, each of which leaves the Gaussian of its best evidence lower bound."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.search import check_bounded
from diffsampler.baseline.walkers import spread_out
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.errors import InputError
from diffsampler.spaces.kernels import HALF_LOG_TWO_PI, noise_like

__all__ = ["follow_gradients"]

MAX_BACKTRACKING = 12
NUM_ELBO_DRAWS = 12
NUM_NEWTON, MAX_NEWTON = 4, 24
CONVERGED = 1e-3  # nats
MAX_SCALED, BADLY_SCALED = 100, 1e3  # dimensions; ratio of scales
MAX_REFINED = 40
NOT_SEEN = -1e6  # the ELBO, in nats, of a Gaussian all of whose draws have zero density
MOSTLY_INSIDE = 0.8  # share of a Gaussian's draws inside the support, below which walkers say how wide a mode is
OFFER_EVERY = 4
FORGETTABLE = 25.0  # nats
# Nats: ELBOs of a dozen draws flatter the best of many; curvature at the end of a path is no matter of luck.
REFINED_MARGIN = 1.0
RESOLVED = 3e-6  # of a standard deviation, given the other coordinates


def follow_gradients(
    target: CountedTarget,
    x: Tensor,
    generator: torch.Generator | None = None,
    num_iterations: int = 100,
) -> GaussianComponents:
    """Gaussians around the modes: BFGS paths from starts at all distances, side by side.

    Each iterate's inverse Hessian is the covariance of a Gaussian there; a path keeps the one of largest ELBO, which
    is a broad one in a funnel, not the one at its bottom. At the ends the Hessian by differences is tried too.

    References:
        Pathfinder: Parallel quasi-Newton variational inference, Zhang et al., 2022, arXiv:2108.03782.

    Arguments:
        target: the density, differentiable.
        x: where the paths start, with shape (P, D).
        generator: the source of all noise.
        num_iterations: of every path.

    Raises:
        InputError: if the density is zero wherever the paths start.
    """
    value, gradient = target.log_prob_and_score(x)
    usable = value.isfinite() & gradient.isfinite().all(-1)
    if not usable.any():
        raise InputError("log_prob or its score is not finite at any of the points where the search starts.")
    x, value, gradient = x[usable], value[usable], gradient[usable]
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    inverse = eye / gradient.norm(dim=-1).clamp(1.0, 1e12)[:, None, None]
    unscaled = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if _differ_in_scale(target, x, value, gradient):
        # Every path twice: curvature at a start may be that of another place.
        inverse = torch.cat([inverse, torch.diag_embed(1 / _curvature(target, x, gradient))])
        x, value, gradient, unscaled = x.repeat(2, 1), value.repeat(2), gradient.repeat(2, 1), unscaled.repeat(2)
        unscaled[len(x) // 2 :] = False
    best = _Best(x, inverse)
    moving = torch.arange(len(x), device=x.device)
    for iteration in range(num_iterations):
        here = x[moving], value[moving], gradient[moving]
        direction = (inverse[moving] @ here[2].unsqueeze(-1)).squeeze(-1)
        there = _line_search(target, *here, direction)
        x[moving], value[moving], gradient[moving] = there
        step = there[0] - here[0]
        first = unscaled[moving] & (iteration == 0)
        inverse[moving] = _bfgs_update(inverse[moving], step, here[2] - there[2], first)
        stopped = (step.abs() <= 1e-8 * (1e-8 + here[0].abs())).all(-1)
        if iteration % OFFER_EVERY == 0:
            best.offer(moving, x[moving], inverse[moving], target, generator)
        elif stopped.any():
            best.offer(moving[stopped], x[moving[stopped]], inverse[moving[stopped]], target, generator)
        moving = moving[~stopped]
        if not len(moving):
            break
    check_bounded(target, x, value)
    # Where many paths have met, one of them goes on.
    rows = torch.tensor(best.distinct(range(len(x)), target)[:MAX_REFINED], device=x.device)
    climbing = rows
    for iteration in range(MAX_NEWTON):
        inverse[climbing] = _inverse_hessian(target, x[climbing], inverse[climbing])
        best.offer(climbing, x[climbing], inverse[climbing], target, generator, REFINED_MARGIN)
        direction = (inverse[climbing] @ gradient[climbing].unsqueeze(-1)).squeeze(-1)
        promised = (direction * gradient[climbing]).sum(-1)  # twice what a step would gain, in nats
        if iteration >= NUM_NEWTON:
            climbing, direction = climbing[promised > CONVERGED], direction[promised > CONVERGED]
            if not len(climbing):
                break
        x[climbing], value[climbing], gradient[climbing] = _line_search(
            target, x[climbing], value[climbing], gradient[climbing], direction
        )
    best.offer(rows, x[rows], _inverse_hessian(target, x[rows], inverse[rows]), target, generator, REFINED_MARGIN)
    # Where the support ends, curvature does not say how wide a mode is: a few walkers do.
    cut = rows[best.share[rows] < MOSTLY_INSIDE]
    if len(cut):
        best.replace(cut, *spread_out(target, x[cut], best.factor[cut], generator), target, generator)
    return best.components(best.distinct(rows.tolist(), target))


def _differ_in_scale(target: CountedTarget, x: Tensor, value: Tensor, gradient: Tensor) -> bool:
    """Whether coordinates differ so much in scale that paths had better know it from the beginning."""
    if x.shape[1] > MAX_SCALED:
        return False
    best = value.topk(min(3, len(x))).indices
    curvature = _curvature(target, x[best], gradient[best])
    return bool((curvature.amax(-1) > BADLY_SCALED**2 * curvature.amin(-1)).any())


def _curvature(target: CountedTarget, x: Tensor, gradient: Tensor) -> Tensor:
    """|d^2 log R / dx_d^2| by differences of the score, with shape (P, D); 1 where it says nothing."""
    num_paths, dim = x.shape
    step = 1e-4 * (1 + x.abs())
    points = x.unsqueeze(1) + torch.diag_embed(step)
    ahead = target.log_prob_and_score(points.reshape(-1, dim))[1].view(num_paths, dim, dim)
    curvature = ((ahead.diagonal(dim1=-2, dim2=-1) - gradient) / step).abs()
    return torch.where(curvature.isfinite() & (curvature > 1e-30), curvature, 1.0)


def _line_search(
    target: CountedTarget, x: Tensor, value: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Each path's first point with enough ascent, of steps 1, 1/4, 1/16, ... along its direction; else where it is."""
    slope = (gradient * direction).sum(-1)
    uphill = slope > 0
    direction = torch.where(uphill.unsqueeze(-1), direction, gradient / gradient.norm(dim=-1, keepdim=True).clamp(1.0))
    slope = (gradient * direction).sum(-1)
    step = torch.ones_like(value)
    moved, moved_value, moved_gradient = x.clone(), value.clone(), gradient.clone()
    waiting = torch.arange(len(x), device=x.device)
    for _ in range(MAX_BACKTRACKING):
        trial = x[waiting] + step[waiting, None] * direction[waiting]
        trial_value, trial_gradient = target.log_prob_and_score(trial)
        enough = trial_value - value[waiting] >= 1e-4 * step[waiting] * slope[waiting]
        enough = enough & trial_value.isfinite() & trial_gradient.isfinite().all(-1)
        done = waiting[enough]
        moved[done], moved_value[done], moved_gradient[done] = (
            trial[enough],
            trial_value[enough],
            trial_gradient[enough],
        )
        waiting = waiting[~enough]
        if not len(waiting):
            break
        step[waiting] = 0.25 * step[waiting]
    return moved, moved_value, moved_gradient


def _bfgs_update(inverse: Tensor, step: Tensor, change: Tensor, first: Tensor) -> Tensor:
    """The inverse Hessian of -log R after a step, with shape (P, D, D); unchanged where curvature is not positive.

    On first steps, those with shape (P), it is a multiple of the identity before.
    """
    curvature = (step * change).sum(-1)
    good = curvature > 1e-12 * step.norm(dim=-1) * change.norm(dim=-1)
    rho = torch.where(good, 1 / curvature, 0.0)[:, None, None]
    eye = torch.eye(step.shape[-1], dtype=step.dtype, device=step.device)
    scale = torch.where(good, curvature / change.square().sum(-1), 1.0)
    inverse = torch.where((good & first)[:, None, None], scale[:, None, None] * eye, inverse)
    left = eye - rho * step.unsqueeze(-1) * change.unsqueeze(-2)
    updated = left @ inverse @ left.mT + rho * step.unsqueeze(-1) * step.unsqueeze(-2)
    return torch.where(good[:, None, None], updated, inverse)


def _inverse_hessian(target: CountedTarget, x: Tensor, inverse: Tensor) -> Tensor:
    """By central differences of the score, along the axes of what BFGS found; that where it is not positive."""
    num_paths, dim = x.shape
    factor, info = torch.linalg.cholesky_ex(inverse)
    usable = info == 0
    factor = torch.where(usable[:, None, None], factor, torch.eye(dim, dtype=x.dtype, device=x.device))
    step = 1e-3 * factor.mT  # row d: a thousandth of a standard deviation along axis d
    points = torch.stack([x.unsqueeze(1) + step, x.unsqueeze(1) - step])
    _, score = target.log_prob_and_score(points.reshape(-1, dim))
    ahead, behind = score.view(2, num_paths, dim, dim)
    # In whitened coordinates the Hessian is near the identity.
    whitened = -((ahead - behind) / 2e-3) @ factor
    whitened = torch.nan_to_num(0.5 * (whitened + whitened.mT))
    # Where the axes are not those of the target yet, its scales may still differ by many orders of magnitude.
    unit = whitened.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).rsqrt()
    scaled = unit.unsqueeze(-1) * whitened * unit.unsqueeze(-2)
    # Of the rest eigh itself makes an error.
    usable = usable & (whitened.diagonal(dim1=-2, dim2=-1) > 0).all(-1) & (scaled.abs() <= 2).all(-1).all(-1)
    scaled = torch.where(usable[:, None, None], scaled, torch.eye(dim, dtype=x.dtype, device=x.device))
    values, vectors = torch.linalg.eigh(scaled)
    usable = usable & (values[:, 0] > 1e-9 * values[:, -1])
    root = factor @ (unit.unsqueeze(-1) * vectors / values.clamp(min=1e-9 * values[:, -1:]).sqrt().unsqueeze(-2))
    return torch.where(usable[:, None, None], root @ root.mT, inverse)


class _Best:
    """The Gaussian of largest ELBO on each path so far."""

    def __init__(self, x: Tensor, inverse: Tensor) -> None:
        self.loc, self.factor = x.clone(), torch.linalg.cholesky(inverse)
        self.elbo = x.new_full((len(x),), -math.inf)
        self.share = torch.ones_like(self.elbo)  # of draws of the Gaussian inside the support

    def offer(
        self,
        rows: Tensor,
        x: Tensor,
        covariance: Tensor,
        target: CountedTarget,
        generator: torch.Generator | None,
        margin: float = 0.0,
    ) -> None:
        """Take N(x, covariance) for the paths named by rows, where its ELBO is better, or worse by less than margin."""
        factor, info = torch.linalg.cholesky_ex(covariance)
        # Narrower, relative to the rest, than floating-point numbers can tell: a spike that none of them resolves.
        within = factor.diagonal(dim1=-2, dim2=-1) / factor.norm(dim=-1)
        usable = (info == 0) & factor.isfinite().all(-1).all(-1) & (within.amin(-1) > RESOLVED)
        usable = usable & (factor.norm(dim=-1) > torch.finfo(x.dtype).eps * x.abs()).all(-1)
        factor = torch.where(usable[:, None, None], factor, self.factor[rows])
        num_paths, dim = x.shape
        noise = noise_like(x.new_empty(num_paths, NUM_ELBO_DRAWS, dim), generator)
        points = x.unsqueeze(1) + noise @ factor.mT
        log_prob = or_zero_density(target.log_prob(points.reshape(-1, dim))).view(num_paths, NUM_ELBO_DRAWS)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        # Of no variance where the target is this Gaussian: the draws decide nothing then.
        log_ratio = log_prob + 0.5 * noise.square().sum(-1) + log_det + dim * HALF_LOG_TWO_PI
        # Of the draws inside the support, and the share of these: an edge is no reason to think less of a mode.
        inside = ~log_ratio.isneginf()
        share = inside.double().mean(-1)
        elbo = torch.where(inside, log_ratio, 0.0).sum(-1) / inside.sum(-1).clamp(min=1) + share.log()
        elbo = torch.where(share > 0, elbo, NOT_SEEN)
        better = usable & (elbo > self.elbo[rows] - margin)
        rows = rows[better]
        self.loc[rows], self.factor[rows] = x[better], factor[better]
        self.elbo[rows], self.share[rows] = elbo[better], share[better].to(x)

    def replace(
        self, rows: Tensor, x: Tensor, covariance: Tensor, target: CountedTarget, generator: torch.Generator | None
    ) -> None:
        """Take N(x, covariance) for the paths named by rows, whatever they had."""
        self.elbo[rows] = -math.inf
        self.offer(rows, x, covariance, target, generator)

    def distinct(self, rows: Sequence[int], target: CountedTarget) -> list[int]:
        """Those paths that ended neither far below the best nor in a mode where a better one did, best first."""
        order = sorted(rows, key=lambda row: -float(self.elbo[row]))
        order = [row for row in order if self.elbo[row] > self.elbo[order[0]] - FORGETTABLE]
        ends = GaussianComponents(self.loc[order], self.factor[order])
        height = or_zero_density(target.log_prob(ends.loc))
        same = ends.accounts_for(ends, height, height).tolist()
        kept: list[int] = []
        for n in range(len(order)):
            if not any(same[n][k] for k in kept):
                kept.append(n)
        return [order[n] for n in kept]

    def components(self, kept: list[int]) -> GaussianComponents:
        """Half of the weight by ELBO, half equally."""
        share = self.elbo[kept].softmax(0)
        return GaussianComponents(self.loc[kept], self.factor[kept], 0.5 * share + 0.5 / len(kept))
