"""Where is the target, and how wide: Gaussian components found without any tuning.

With gradients, many quasi-Newton paths, each of which keeps the Gaussian of its best evidence lower bound; without, a
population that is fitted and redrawn.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count
from diffsampler.estimators.components import GaussianComponents
from diffsampler.estimators.propriety import check_proper
from diffsampler.estimators.tempering import step_at_ess
from diffsampler.kernels import HALF_LOG_TWO_PI, noise_like
from diffsampler.target import CountedTarget, or_zero_density

__all__ = ["follow_gradients", "follow_population", "starts_at_all_radii", "unexplained_peaks"]

SMALLEST_RADIUS, LARGEST_RADIUS = 0.03, 300.0
NUM_ALIKE = 400
SUSPICIOUS = 1e12  # where hardly a target is, and higher than hardly one is
MAX_BACKTRACKING = 12
NUM_ELBO_DRAWS = 12
NUM_NEWTON = 4
MAX_REFINED = 32
MAX_SHRINKING = 10
NOT_SEEN = -1e6  # the ELBO, in nats, of a Gaussian all of whose draws have zero density
OFFER_EVERY = 4
FORGETTABLE = 25.0  # nats
WIDENING = 1.2
EFFECTIVE = 0.1
# Nats: ELBOs of a dozen draws flatter the best of many; curvature at the end of a path is no matter of luck.
REFINED_MARGIN = 1.0
SAME = 0.7  # standard deviations
NUM_NEIGHBOURS, ROWS_AT_A_TIME = 10, 1000


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
    best = _Best(x, inverse)
    moving = torch.arange(len(x), device=x.device)
    for iteration in range(num_iterations):
        here = x[moving], value[moving], gradient[moving]
        direction = (inverse[moving] @ here[2].unsqueeze(-1)).squeeze(-1)
        there = _line_search(target, *here, direction)
        x[moving], value[moving], gradient[moving] = there
        step = there[0] - here[0]
        inverse[moving] = _bfgs_update(inverse[moving], step, here[2] - there[2], first=iteration == 0)
        stopped = (step.abs() <= 1e-8 * (1e-8 + here[0].abs())).all(-1)
        if iteration % OFFER_EVERY == 0:
            best.offer(moving, x[moving], inverse[moving], target, generator)
        elif stopped.any():
            best.offer(moving[stopped], x[moving[stopped]], inverse[moving[stopped]], target, generator)
        moving = moving[~stopped]
        if not len(moving):
            break
    _check_bounded(target, x, value)
    # Where many paths have met, one of them goes on.
    rows = torch.tensor(best.distinct(range(len(x)))[:MAX_REFINED], device=x.device)
    for _ in range(NUM_NEWTON):
        inverse[rows] = _inverse_hessian(target, x[rows], inverse[rows])
        best.offer(rows, x[rows], inverse[rows], target, generator, REFINED_MARGIN)
        direction = (inverse[rows] @ gradient[rows].unsqueeze(-1)).squeeze(-1)
        x[rows], value[rows], gradient[rows] = _line_search(target, x[rows], value[rows], gradient[rows], direction)
    best.offer(rows, x[rows], _inverse_hessian(target, x[rows], inverse[rows]), target, generator, REFINED_MARGIN)
    for _ in range(MAX_SHRINKING):
        # A support narrower than any curvature says: a box, say, in which the density is flat.
        unseen = rows[best.elbo[rows] <= NOT_SEEN]
        if not len(unseen):
            break
        inverse[unseen] = 0.25 * inverse[unseen]
        best.offer(unseen, x[unseen], inverse[unseen], target, generator, REFINED_MARGIN)
    return best.components(best.distinct(rows.tolist()))


def unexplained_peaks(target: CountedTarget, x: Tensor, found: GaussianComponents, limit: int = 64) -> Tensor:
    """Those of many points, with shape (n, D), that are higher than all of their neighbours: (m, D), m <= limit.

    Where there are more, those come first that the components found so far explain least: a narrow mode far from the
    others stands out there, long before a path would hit on it.
    """
    log_prob = or_zero_density(target.log_prob(x))
    highest = torch.empty_like(log_prob)
    for part in torch.arange(len(x), device=x.device).split(ROWS_AT_A_TIME):
        near = torch.cdist(x[part], x).topk(NUM_NEIGHBOURS + 1, largest=False).indices[:, 1:]
        highest[part] = log_prob[near].amax(-1)
    peak = (log_prob > highest) & log_prob.isfinite()
    x, surplus = x[peak], log_prob[peak] - found.log_prob_and_score(x[peak])[0]
    x = x[surplus.argsort(descending=True)[:limit]]
    if not len(x):
        return x
    score = target.log_prob_and_score(x)[1]
    return x[score.isfinite().all(-1) & (score != 0).any(-1)]  # from a flat top no path leads anywhere


def follow_population(
    target: CountedTarget, size: int = 1000, num_iterations: int = 60, generator: torch.Generator | None = None
) -> GaussianComponents:
    """One Gaussian, without gradients: points are weighted by a tempered density, fitted and drawn again.

    References:
        The cross-entropy method, Rubinstein, 1999, with weights tempered to an effective sample size of a tenth.

    Arguments:
        target: the density.
        size: of the population.
        num_iterations: populations at most.
        generator: the source of all noise.

    Raises:
        InputError: if the density is zero wherever the population starts.
    """
    x = _at_all_radii(check_count("size", size), target.target.dim, generator)
    log_start = torch.zeros_like(x[:, 0])
    for _ in range(num_iterations):
        log_prob = target.log_prob(x)
        _check_somewhere(log_prob, target.name)
        log_prob = or_zero_density(log_prob)
        ratio = log_prob - log_start
        # Of all points, those of zero density included.
        num_usable = int((~ratio.isneginf()).sum())
        beta = step_at_ess(ratio, 1.0, EFFECTIVE * size / num_usable)
        components = GaussianComponents.fitted_to(x, (beta * (ratio - ratio.max())).exp(), WIDENING)
        if beta == 1:
            break
        x = components.sample(size, generator)
        _check_bounded(target, x, log_prob)
        log_start, _ = components.log_prob_and_score(x)
    return components


def _check_bounded(target: CountedTarget, x: Tensor, log_prob: Tensor) -> None:
    highest = log_prob == log_prob.max()
    if (x.abs() > SUSPICIOUS).any(-1)[highest].any() or (log_prob > SUSPICIOUS).any():
        check_proper(target, x)


def _check_somewhere(log_prob: Tensor, name: str) -> None:
    where = f"{len(log_prob)} points up to {LARGEST_RADIUS:g} from the origin"
    if log_prob.isnan().all():
        raise InputError(f"{name}.log_prob is NaN at all {where}.")
    if not log_prob.isfinite().any():
        raise InputError(f"{name}.log_prob is not finite at any of {where}: move or scale the target.")


def starts_at_all_radii(
    target: CountedTarget, num_shells: int = 32, num_tried: int = 2000, generator: torch.Generator | None = None
) -> Tensor:
    """Points at every distance from the origin, with shape (P, D): the best of each shell, and two more of it.

    And the peaks among points whose coordinates are all alike: shifts of that kind are common, and in high dimensions
    random points meet no given direction. Points of zero density are left out.

    Raises:
        InputError: if the density is zero at all points tried.
    """
    x = _at_all_radii(num_tried, target.target.dim, generator)
    log_prob = target.log_prob(x)
    _check_somewhere(log_prob, target.name)
    log_prob = or_zero_density(log_prob)
    starts = []
    for shell, values in zip(x.chunk(num_shells), log_prob.chunk(num_shells), strict=True):
        usable = ~values.isneginf()
        if usable.any():
            starts += [shell[values.argmax()][None], shell[usable][:2]]
    return torch.cat([*starts, _peaks_where_all_are_alike(target, x)])


def _peaks_where_all_are_alike(target: CountedTarget, like: Tensor) -> Tensor:
    """The peaks along the diagonal, on either side of the origin, with shape (m, D)."""
    ends = math.log10(SMALLEST_RADIUS), math.log10(LARGEST_RADIUS)
    radii = torch.logspace(*ends, NUM_ALIKE, dtype=like.dtype, device=like.device)
    x = torch.cat([-radii.flip(0), radii]).unsqueeze(-1).expand(-1, like.shape[1])
    log_prob = or_zero_density(target.log_prob(x))
    before, here, after = log_prob[:-2], log_prob[1:-1], log_prob[2:]
    return x[1:-1][(here > before) & (here >= after)]


def _at_all_radii(n: int, dim: int, generator: torch.Generator | None) -> Tensor:
    """Points of normal distributions whose widths are spread evenly on a log scale, with shape (n, D)."""
    like = {"dtype": torch.float64, "device": None if generator is None else generator.device}
    widths = torch.logspace(math.log10(SMALLEST_RADIUS), math.log10(LARGEST_RADIUS), n, **like)
    return widths.unsqueeze(-1) * torch.randn(n, dim, generator=generator, **like)


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


def _bfgs_update(inverse: Tensor, step: Tensor, change: Tensor, first: bool) -> Tensor:
    """The inverse Hessian of -log R after a step, with shape (P, D, D); unchanged where curvature is not positive."""
    curvature = (step * change).sum(-1)
    good = curvature > 1e-12 * step.norm(dim=-1) * change.norm(dim=-1)
    rho = torch.where(good, 1 / curvature, 0.0)[:, None, None]
    eye = torch.eye(step.shape[-1], dtype=step.dtype, device=step.device)
    if first:
        scale = torch.where(good, curvature / change.square().sum(-1), 1.0)
        inverse = torch.where(good[:, None, None], scale[:, None, None] * eye, inverse)
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
    values, vectors = torch.linalg.eigh(torch.nan_to_num(0.5 * (whitened + whitened.mT)))
    usable = usable & (values[:, 0] > 1e-9 * values[:, -1]) & whitened.isfinite().all(-1).all(-1)
    root = factor @ (vectors / values.clamp(min=1e-9 * values[:, -1:]).sqrt().unsqueeze(-2))
    return torch.where(usable[:, None, None], root @ root.mT, inverse)


class _Best:
    """The Gaussian of largest ELBO on each path so far."""

    def __init__(self, x: Tensor, inverse: Tensor) -> None:
        self.loc, self.factor = x.clone(), torch.linalg.cholesky(inverse)
        self.elbo = x.new_full((len(x),), -math.inf)

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
        usable = (info == 0) & factor.isfinite().all(-1).all(-1)
        factor = torch.where(usable[:, None, None], factor, self.factor[rows])
        num_paths, dim = x.shape
        noise = noise_like(x.new_empty(num_paths, NUM_ELBO_DRAWS, dim), generator)
        points = x.unsqueeze(1) + noise @ factor.mT
        log_prob = or_zero_density(target.log_prob(points.reshape(-1, dim))).view(num_paths, NUM_ELBO_DRAWS)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        # Of no variance where the target is this Gaussian: the draws decide nothing then.
        log_ratio = log_prob + 0.5 * noise.square().sum(-1) + log_det + dim * HALF_LOG_TWO_PI
        # A draw of zero density counts as a hundred nats below, not as minus infinity: supports may have edges.
        largest = log_ratio.amax(-1, keepdim=True)
        elbo = torch.maximum(log_ratio, torch.where(largest.isneginf(), NOT_SEEN, largest - 100.0)).mean(-1)
        better = usable & (elbo > self.elbo[rows] - margin)
        rows = rows[better]
        self.loc[rows], self.factor[rows], self.elbo[rows] = x[better], factor[better], elbo[better]

    def distinct(self, rows: Sequence[int]) -> list[int]:
        """Those paths that ended neither far below the best nor where a better one did, best first."""
        order = sorted(rows, key=lambda row: -float(self.elbo[row]))
        kept: list[int] = []
        for row in order:
            if self.elbo[row] > self.elbo[order[0]] - FORGETTABLE and not self._is_among(row, kept):
                kept.append(row)
        return kept

    def components(self, kept: list[int]) -> GaussianComponents:
        """Half of the weight by ELBO, half equally."""
        share = self.elbo[kept].softmax(0)
        return GaussianComponents(self.loc[kept], self.factor[kept], 0.5 * share + 0.5 / len(kept))

    def _is_among(self, row: int, kept: list[int]) -> bool:
        """Whether a path ended in the middle of a better one's Gaussian."""
        if not kept:
            return False
        shift = (self.loc[row] - self.loc[kept]).unsqueeze(-1)
        distance = torch.linalg.solve_triangular(self.factor[kept], shift, upper=False).square().sum((-2, -1))
        return bool((distance < SAME**2).any())
