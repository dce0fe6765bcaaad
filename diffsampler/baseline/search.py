"""Where is the target: points to start from at all scales, peaks among scattered points, populations."""

import math

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.propriety import check_proper
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.errors import InputError
from diffsampler.log_z.resampling import step_at_ess
from diffsampler.spaces.kernels import noise_like

SMALLEST_RADIUS, LARGEST_RADIUS, NUM_SHELLS = 0.03, 300.0, 32
NUM_ALIKE = 400
# One coordinate is searched all along: steps of a seventh of a percent.
EXPONENTS_OF_ONE, NUM_OF_ONE = (-6, 8), 20_000
SUSPICIOUS = 1e12  # where hardly a target is, and higher than hardly one is
RESOLVED = 1.0  # nats
WIDENING = 1.2
POPULATION, NUM_POPULATIONS, EFFECTIVE = 1000, 60, 0.1
PEAKS_WIDENING = 2.0
NUM_NEIGHBOURS, ROWS_AT_A_TIME = 10, 1000
FEW_DIMENSIONS = 5  # in which points can be many enough to show peaks
NUM_TRIED, NUM_TRIED_IN_FEW, NUM_PEAKS = 2000, 12_000, 64
NUM_KNOWN = 32  # of points that a target knows of


def unexplained_peaks(target: CountedTarget, x: Tensor, found: GaussianComponents, limit: int = 96) -> Tensor:
    """Those of many points, with shape (n, D), that stand out among their neighbours: (m, D), m <= limit.

    Half of them are higher than all neighbours, half less explained by the components found so far: a narrow mode far
    from the others shows there, long before a path would hit on it.
    """
    log_prob = or_zero_density(target.log_prob(x))
    neighbours = _neighbours(x)

    def surplus_over(explained: GaussianComponents) -> Tensor:
        return torch.where(log_prob.isfinite(), log_prob - explained.log_prob(x), -math.inf)

    peak = _peaks(log_prob, neighbours)
    # In the outskirts of a mode that nothing explains points are no peaks, but nothing explains them either.
    surplus = surplus_over(found)
    outstanding = (surplus >= surplus[neighbours].amax(-1)) & log_prob.isfinite()
    ranked = (peak, surplus_over(found.widened(PEAKS_WIDENING))), (outstanding, surplus)
    chosen = [_first(rows, by, limit // 2) for rows, by in ranked]
    x = x[list(dict.fromkeys(torch.cat(chosen).tolist()))]
    if not len(x) or not target.differentiable:
        return x
    score = target.log_prob_and_score(x)[1]
    return x[score.isfinite().all(-1) & (score != 0).any(-1)]  # from a flat top no path leads anywhere


def _peaks(log_prob: Tensor, neighbours: Tensor) -> Tensor:
    """Which points are higher than all of their neighbours, with shape (n)."""
    return (log_prob > log_prob[neighbours].amax(-1)) & log_prob.isfinite()


def _first(chosen: Tensor, by: Tensor, limit: int) -> Tensor:
    """The chosen rows that rank first."""
    rows = chosen.nonzero().squeeze(-1)
    return rows[by[rows].argsort(descending=True)[:limit]]


def _neighbours(x: Tensor) -> Tensor:
    """The rows of the nearest points to each, with shape (n, k)."""
    if x.shape[1] <= FEW_DIMENSIONS:
        from scipy.spatial import cKDTree  # five times what importing diffsampler takes

        points = x.cpu().numpy()
        return torch.as_tensor(cKDTree(points).query(points, NUM_NEIGHBOURS + 1)[1][:, 1:], device=x.device)
    parts = [
        torch.cdist(x[part], x).topk(NUM_NEIGHBOURS + 1, largest=False).indices[:, 1:]
        for part in torch.arange(len(x), device=x.device).split(ROWS_AT_A_TIME)
    ]
    return torch.cat(parts)


def follow_population(target: CountedTarget, generator: torch.Generator) -> GaussianComponents:
    """One Gaussian, without gradients: points are weighted by a tempered density, fitted and drawn again.

    References:
        The cross-entropy method, Rubinstein, 1999, with weights tempered to an effective sample size of a tenth.

    Raises:
        InputError: if the density is zero wherever the population starts.
    """
    x = _at_all_radii(POPULATION, target.dim, generator)
    log_start = torch.zeros_like(x[:, 0])
    for _ in range(NUM_POPULATIONS):
        log_prob = _somewhere(target, x)
        ratio = log_prob - log_start
        # Of all points, those of zero density included.
        beta = step_at_ess(ratio, 1.0, EFFECTIVE * POPULATION / int((~ratio.isneginf()).sum()))
        components = GaussianComponents.fitted_to(x, (beta * (ratio - ratio.max())).exp(), WIDENING)
        if beta == 1:
            break
        x = components.sample(POPULATION, generator)
        check_bounded(target, x, log_prob)
        log_start, _ = components.log_prob_and_score(x)
    check_bounded(target, x, log_prob)
    check_resolved(target, log_prob)
    return components


def check_bounded(target: CountedTarget, x: Tensor, log_prob: Tensor) -> None:
    highest = log_prob == log_prob.max()
    if (x.abs() > SUSPICIOUS).any(-1)[highest].any() or (log_prob > SUSPICIOUS).any():
        check_proper(target, x)


def check_resolved(target: CountedTarget, log_prob: Tensor) -> None:
    """Refuse a density whose values, with shape (n), are so large where it is highest that nothing of it is left.

    Raises:
        InputError: if rounding is more than a nat there, as of an energy in joules in units of a kT in another.
    """
    finite = log_prob[log_prob.isfinite()]
    if not len(finite):
        return
    highest = float(finite.max())
    rounding = abs(highest) * torch.finfo(torch.float64).eps
    if rounding > RESOLVED:
        raise InputError(
            f"{target.name}.log_prob is {highest:.3g} at the highest point that the search has found, and float64 "
            f"knows that to {float(f'{rounding:.1g}'):g} nats only: give a temperature as kT in the units of the "
            "energy, take a large constant off, or rescale x if its mass is that narrow."
        )


def _somewhere(target: CountedTarget, x: Tensor) -> Tensor:
    """log R of points x, with shape (n, D), at some of which it must be a number."""
    log_prob = target.log_prob(x)
    where = f"{len(x)} points up to {LARGEST_RADIUS:g} from the origin"
    if log_prob.isnan().all():
        raise InputError(f"{target.name}.log_prob is NaN at all {where}.")
    if not log_prob.isfinite().any():
        raise InputError(f"{target.name}.log_prob is not finite at any of {where}: move or scale the target.")
    return or_zero_density(log_prob)


def starts_at_all_radii(target: CountedTarget, generator: torch.Generator) -> Tensor:
    """Points at every distance from the origin, with shape (P, D): peaks, the best of each shell and two more.

    Peaks among them all, where there are few dimensions, and among points whose coordinates are all alike: shifts of
    that kind are common, and in high dimensions random points meet no given direction. And points that the target
    knows of, if it does. Points of zero density are left out.

    Raises:
        InputError: if the density is zero at all points tried.
    """
    few = target.dim <= FEW_DIMENSIONS
    x = _at_all_radii(NUM_TRIED_IN_FEW if few else NUM_TRIED, target.dim, generator)
    known = known_to_the_target(target, NUM_KNOWN, x, generator)
    log_prob = _somewhere(target, x)
    starts = [known, _peaks_where_all_are_alike(target, x)]
    if few:
        starts.append(x[_first(_peaks(log_prob, _neighbours(x)), log_prob, NUM_PEAKS)])
    for shell, values in zip(x.chunk(NUM_SHELLS), log_prob.chunk(NUM_SHELLS), strict=True):
        usable = ~values.isneginf()
        if usable.any():
            starts += [shell[values.argmax()][None], shell[usable][:2]]
    return torch.cat(starts)


def known_to_the_target(target: CountedTarget, n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """At most n points that it wants searched, of a prior say, with shape (m, D)."""
    user_target = target.density.user_target
    known = user_target.starting_points(n, generator)
    if known is None:
        return like[:0]
    if not isinstance(known, Tensor) or known.ndim != 2 or known.shape[1] != user_target.dim:
        shown = tuple(known.shape) if isinstance(known, Tensor) else type(known).__name__
        raise InputError(
            f"{target.name}.starting_points must return None or a tensor (m, {user_target.dim}), got {shown}."
        )
    x = target.density.from_user(known[:n].to(like))
    return x[target.log_prob(x).isfinite()]


def _peaks_where_all_are_alike(target: CountedTarget, like: Tensor) -> Tensor:
    """The highest peaks along the diagonal, on either side of the origin, with shape (m, D)."""
    if target.dim > 1:
        radii = all_widths(NUM_ALIKE, like.device)
    else:
        radii = torch.logspace(*EXPONENTS_OF_ONE, NUM_OF_ONE, dtype=like.dtype, device=like.device)
    x = torch.cat([-radii.flip(0), radii]).unsqueeze(-1).expand(-1, target.dim)
    log_prob = or_zero_density(target.log_prob(x))
    before, here, after = log_prob[:-2], log_prob[1:-1], log_prob[2:]
    peak = (here > before) & (here >= after)
    return x[1:-1][_first(peak, here, NUM_PEAKS)]


def all_widths(n: int, device: torch.device) -> Tensor:
    """From the smallest to the largest, evenly on a log scale, with shape (n)."""
    return torch.logspace(
        math.log10(SMALLEST_RADIUS), math.log10(LARGEST_RADIUS), n, dtype=torch.float64, device=device
    )


def _at_all_radii(n: int, dim: int, generator: torch.Generator) -> Tensor:
    """Points of normal distributions of all widths, with shape (n, D)."""
    widths = all_widths(n, generator.device).unsqueeze(-1)
    return widths * noise_like(widths.expand(n, dim), generator)
