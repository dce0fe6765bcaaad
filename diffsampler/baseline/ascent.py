"""Quasi-Newton paths side by side, each of which leaves the Gaussian of its best evidence lower bound."""

import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents, cholesky
from diffsampler.baseline.moves import Particles
from diffsampler.baseline.propriety import check_proper
from diffsampler.baseline.search import check_bounded, check_resolved
from diffsampler.baseline.walkers import spread_out
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.errors import InputError
from diffsampler.spaces.kernels import HALF_LOG_TWO_PI, noise_like

NUM_ITERATIONS = 100
# Powers of 1/4 that are tried together: where the first fails, a call for several costs hardly more than one for one.
BACKTRACKING = ((0,), (1, 2), (3, 4, 5), (6, 7, 8, 9, 10, 11))
NUM_ELBO_DRAWS = 12
NUM_NEWTON, MAX_NEWTON = 4, 24
CONVERGED = 1e-3  # nats
MAX_SCALED, BADLY_SCALED = 100, 1e3  # dimensions; ratio of scales
MAX_REFINED = 40
NOT_SEEN = -1e6  # the ELBO, in nats, of a Gaussian all of whose draws have zero density
MOSTLY_INSIDE = 0.8  # share of a Gaussian's draws inside the support, below which walkers say how wide a mode is
OFFER_EVERY = 4
FORGETTABLE, LOWEST = 25.0, -sys.float_info.max  # nats
# Nats: ELBOs of a dozen draws flatter the best of many; curvature at the end of a path is no matter of luck.
REFINED_MARGIN = 1.0
RESOLVED = 3e-6  # of a standard deviation, given the other coordinates


def follow_gradients(target: CountedTarget, x: Tensor, generator: torch.Generator) -> GaussianComponents:
    """Gaussians around the modes: BFGS paths from starts x, with shape (P, D), side by side.

    Each iterate's inverse Hessian is the covariance of a Gaussian there; a path keeps the one of largest ELBO, which
    is a broad one in a funnel, not the one at its bottom. At the ends the Hessian by differences is tried too.

    References:
        Pathfinder: Parallel quasi-Newton variational inference, Zhang et al., 2022, arXiv:2108.03782.

    Raises:
        InputError: if the density is zero wherever the paths start.
    """
    here = Particles(x, *target.log_prob_and_score(x))
    usable = here.log_prob.isfinite() & here.score.isfinite().all(-1)
    if not usable.any():
        raise InputError("log_prob or its score is not finite at any of the points where the search starts.")
    here = here[usable]
    num_paths, dim = here.x.shape
    eye = torch.eye(dim, dtype=x.dtype, device=x.device)
    inverse = eye / here.score.norm(dim=-1).clamp(1.0, 1e12)[:, None, None]
    if _differ_in_scale(target, here):
        # Every path twice: curvature at a start may be that of another place.
        inverse = torch.cat([inverse, torch.diag_embed(1 / _curvature(target, here))])
        here = here[torch.arange(num_paths, device=x.device).repeat(2)]
    best = _Best(target, here.x, inverse, generator)
    moving = torch.arange(len(here.x), device=x.device)
    for iteration in range(NUM_ITERATIONS):
        before = here[moving]
        after = _line_search(target, before, _times(inverse[moving], before.score))
        here.put(moving, after)
        step, unscaled = after.x - before.x, (moving < num_paths) & (iteration == 0)
        inverse[moving] = _bfgs_update(inverse[moving], step, before.score - after.score, unscaled)
        stopped = (step.abs() <= 1e-8 * (1e-8 + before.x.abs())).all(-1)
        offered = moving if iteration % OFFER_EVERY == 0 else moving[stopped]
        if len(offered):
            best.offer(offered, here.x[offered], inverse[offered])
        moving = moving[~stopped]
        if not len(moving):
            break
    check_bounded(target, here.x, here.log_prob)
    check_resolved(target, here.log_prob)
    # Where many paths have met, one of them goes on.
    rows = climbing = torch.tensor(_ends(target, best, here, range(len(here.x)))[:MAX_REFINED], device=x.device)
    for iteration in range(MAX_NEWTON):
        inverse[climbing] = _inverse_hessian(target, here.x[climbing], inverse[climbing])
        best.offer(climbing, here.x[climbing], inverse[climbing], REFINED_MARGIN)
        direction = _times(inverse[climbing], here.score[climbing])
        promised = (direction * here.score[climbing]).sum(-1)  # twice what a step would gain, in nats
        if iteration >= NUM_NEWTON:
            climbing, direction = climbing[promised > CONVERGED], direction[promised > CONVERGED]
            if not len(climbing):
                break
        here.put(climbing, _line_search(target, here[climbing], direction))
    best.offer(rows, here.x[rows], _inverse_hessian(target, here.x[rows], inverse[rows]), REFINED_MARGIN)
    # Where the support ends, curvature does not say how wide a mode is: a few walkers do.
    cut = rows[best.share[rows] < MOSTLY_INSIDE]
    if len(cut):
        walked = spread_out(target, here.x[cut], best.factor[cut], generator)
        best.elbo[cut] = -math.inf  # whatever they had
        best.offer(cut, *walked)
    return best.components(_ends(target, best, here, rows.tolist()))


def _ends(target: CountedTarget, best: "_Best", here: Particles, rows: Sequence[int]) -> list[int]:
    """The paths that have come to different modes, best first.

    Raises:
        InputError: if no Gaussian anywhere says anything of the density, as where it has no integral.
    """
    found = best.distinct(rows)
    if not found:
        check_proper(target, here.x)
        raise InputError(
            f"{target.name}.log_prob falls away, or is no number, around every point that the search has come to: "
            "is it finite on a region of any width, and does it have an integral?"
        )
    return found


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors.unsqueeze(-1)).squeeze(-1)


def _differ_in_scale(target: CountedTarget, here: Particles) -> bool:
    """Whether coordinates differ so much in scale that paths had better know it from the beginning."""
    if here.x.shape[1] > MAX_SCALED:
        return False
    curvature = _curvature(target, here[here.log_prob.topk(min(3, len(here.x))).indices])
    return bool((curvature.amax(-1) > BADLY_SCALED**2 * curvature.amin(-1)).any())


def _curvature(target: CountedTarget, here: Particles) -> Tensor:
    """|d^2 log R / dx_d^2| by differences of the score, with shape (P, D); 1 where it says nothing."""
    step = 1e-4 * (1 + here.x.abs())
    ahead = target.log_prob_and_score(here.x.unsqueeze(1) + torch.diag_embed(step))[1]
    curvature = ((ahead.diagonal(dim1=-2, dim2=-1) - here.score) / step).abs()
    return torch.where(curvature.isfinite() & (curvature > 1e-30), curvature, 1.0)


def _line_search(target: CountedTarget, here: Particles, direction: Tensor) -> Particles:
    """Each path's first point with enough ascent, of steps 1, 1/4, 1/16, ... along its direction; else where it is."""
    uphill = ((here.score * direction).sum(-1) > 0).unsqueeze(-1)
    direction = torch.where(uphill, direction, here.score / here.score.norm(dim=-1, keepdim=True).clamp(1.0))
    slope = (here.score * direction).sum(-1)
    waiting = torch.arange(len(slope), device=slope.device)
    moved = here[waiting]
    for exponents in BACKTRACKING:
        step = 0.25 ** torch.tensor(exponents, dtype=slope.dtype, device=slope.device).unsqueeze(-1)
        x = here.x[waiting] + step.unsqueeze(-1) * direction[waiting]
        trial = Particles(x, *target.log_prob_and_score(x))
        enough = trial.log_prob - here.log_prob[waiting] >= 1e-4 * step * slope[waiting]
        enough = enough & trial.log_prob.isfinite() & trial.score.isfinite().all(-1)
        rises, first = enough.any(0), enough.int().argmax(0)
        moved.put(waiting[rises], trial[first[rises], rises.nonzero().squeeze(-1)])
        waiting = waiting[~rises]
        if not len(waiting):
            break
    return moved


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
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    factor, info = torch.linalg.cholesky_ex(inverse)
    usable = info == 0
    factor = torch.where(usable[:, None, None], factor, eye)
    step = 1e-3 * factor.mT  # row d: a thousandth of a standard deviation along axis d
    ahead, behind = target.log_prob_and_score(torch.stack([x.unsqueeze(1) + step, x.unsqueeze(1) - step]))[1]
    # In whitened coordinates the Hessian is near the identity.
    whitened = -((ahead - behind) / 2e-3) @ factor
    whitened = torch.nan_to_num(0.5 * (whitened + whitened.mT))
    # Where the axes are not those of the target yet, its scales may still differ by many orders of magnitude.
    unit = whitened.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).rsqrt()
    scaled = unit.unsqueeze(-1) * whitened * unit.unsqueeze(-2)
    # Of the rest eigh itself makes an error.
    usable = usable & (whitened.diagonal(dim1=-2, dim2=-1) > 0).all(-1) & (scaled.abs() <= 2).all(-1).all(-1)
    values, vectors = torch.linalg.eigh(torch.where(usable[:, None, None], scaled, eye))
    usable = usable & (values[:, 0] > 1e-9 * values[:, -1])
    root = factor @ (unit.unsqueeze(-1) * vectors / values.clamp(min=1e-9 * values[:, -1:]).sqrt().unsqueeze(-2))
    return torch.where(usable[:, None, None], root @ root.mT, inverse)


class _Best:
    """The Gaussian of largest ELBO on each path so far."""

    def __init__(self, target: CountedTarget, x: Tensor, inverse: Tensor, generator: torch.Generator) -> None:
        self.target, self.generator = target, generator
        self.loc, self.factor = x.clone(), torch.linalg.cholesky(inverse)
        self.elbo = x.new_full((len(x),), -math.inf)
        self.share = torch.ones_like(self.elbo)  # of draws of the Gaussian inside the support

    def offer(self, rows: Tensor, x: Tensor, covariance: Tensor, margin: float = 0.0) -> None:
        """Take N(x, covariance) for the paths named by rows, where its ELBO is better, or worse by less than margin."""
        factor, usable = cholesky(covariance)
        # Narrower, relative to the rest, than floating-point numbers can tell: a spike that none of them resolves.
        within = factor.diagonal(dim1=-2, dim2=-1) / factor.norm(dim=-1)
        usable = usable & (within.amin(-1) > RESOLVED)
        usable = usable & (factor.norm(dim=-1) > torch.finfo(x.dtype).eps * x.abs()).all(-1)
        factor = torch.where(usable[:, None, None], factor, self.factor[rows])
        noise = noise_like(x.unsqueeze(1).expand(-1, NUM_ELBO_DRAWS, -1), self.generator)
        log_prob = or_zero_density(self.target.log_prob(x.unsqueeze(1) + noise @ factor.mT))
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        # Of no variance where the target is this Gaussian: the draws decide nothing then.
        log_ratio = log_prob + 0.5 * noise.square().sum(-1) + log_det + x.shape[1] * HALF_LOG_TWO_PI
        # Of the draws inside the support, and the share of these: an edge is no reason to think less of a mode.
        inside = ~log_ratio.isneginf()
        share = inside.double().mean(-1)
        elbo = torch.where(inside, log_ratio, 0.0).sum(-1) / inside.sum(-1).clamp(min=1) + share.log()
        elbo = torch.where(share > 0, elbo, NOT_SEEN)
        better = usable & elbo.isfinite() & (elbo > self.elbo[rows] - margin)
        rows = rows[better]
        self.loc[rows], self.factor[rows] = x[better], factor[better]
        self.elbo[rows], self.share[rows] = elbo[better], share[better].to(x)

    def distinct(self, rows: Sequence[int]) -> list[int]:
        """Those paths that ended neither far below the best nor in a mode where a better one did, best first."""
        order = sorted(rows, key=lambda row: -float(self.elbo[row]))
        order = [row for row in order if self.elbo[row] >= max(self.elbo[order[0]] - FORGETTABLE, LOWEST)]
        ends = GaussianComponents(self.loc[order], self.factor[order])
        height = or_zero_density(self.target.log_prob(ends.loc))
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
