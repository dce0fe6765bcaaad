"""In which directions a density might have no end: candidates only, which a walk far out then tries.

A direction is a vector with shape (D) whose largest entry is 1 or -1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget

# Of widths that are looked for; uneven, so that no step is a whole number of periods.
EXPONENTS = (-20.37, 20.18)
NUM_BISECTIONS = 7
CORNER = 1e-6  # what is cut off on both sides so near has no width there
ROUNDING = 1e-10
NUM_CLIMBING, CLIMBING_STEPS, CLIMBING_RADIUS = 8, 25, 1e5
MAX_PAIRED, MAX_NEIGHBOURS = 8, 24
FINITE_STEP, MAX_BY_DIFFERENCES = 1e-5, 40
MAX_DENOMINATOR = 12
FLAT, NUM_PASSES = 1e-6, 2
TINY = 1e-250  # what is smaller has few digits left


def local_scales(log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The width of log R along each coordinate at a point x, with shape (D); inf where it is linear, NaN in a corner.

    That is where its second difference is 1: of a Gaussian the same wherever x is. Where one side is cut off, and x
    may lie on the very edge, it is where the other side has changed by 1. Bisected to a factor of 2.
    """
    eye = torch.eye(len(x), dtype=x.dtype, device=x.device)
    here = log_prob(x[None])
    low, high = (torch.full_like(x, value) for value in EXPONENTS)
    cut = torch.zeros_like(x, dtype=torch.bool)
    for _ in range(NUM_BISECTIONS):
        middle = 0.5 * (low + high)
        step = (10**middle).unsqueeze(-1) * eye
        change = log_prob(torch.cat([x + step, x - step])).view(2, -1) - here
        inside = change.isfinite()
        far = (change.where(inside, 0.0).sum(0).abs() > 1 + ROUNDING * here.abs()) | ~inside.any(0)
        low, high = torch.where(far, low, middle), torch.where(far, middle, high)
        cut = torch.where(far, ~inside.any(0), cut)
    width = torch.where(high == EXPONENTS[1], math.inf, 10**high)
    return torch.where(cut & (width < CORNER * x.abs().max().clamp(min=1.0)), math.nan, width)


def scaled(v: Tensor) -> Tensor:
    """The same directions, with shape (C, D), without those that are zero or not finite."""
    size = v.abs().amax(-1, keepdim=True)
    usable = (v.isfinite().all(-1, keepdim=True) & (size > 0)).squeeze(-1)
    return v[usable] / size[usable]


def translations(like: Tensor) -> Tensor:
    """Of particles, in either layout of their coordinates, with shape (C, D): (1, 0, 1, 0), (1, 1, 0, 0)."""
    dim = like.shape[-1]
    rows = []
    for k in range(1, dim):
        if dim % k == 0:
            index = torch.arange(dim, device=like.device)
            rows += [index % k == 0, index < k] if k > 1 else [index >= 0]
    return torch.stack(rows).to(like) if rows else like.new_zeros(0, dim)


def differences(like: Tensor) -> Tensor:
    """One coordinate against another, with shape (C, D): of a few all pairs, of many some neighbours."""
    dim = like.shape[-1]
    if dim <= MAX_PAIRED:
        pairs = [(i, j) for i in range(dim) for j in range(i + 1, dim)]
    else:
        pairs = [(i, i + 1) for i in range(0, dim - 1, math.ceil(dim / MAX_NEIGHBOURS))]
    eye = torch.eye(dim, dtype=like.dtype, device=like.device)
    return torch.stack([eye[i] - eye[j] for i, j in pairs]) if pairs else like.new_zeros(0, dim)


def flat_directions(target: CountedTarget, x: Tensor, scales: Tensor, noise: Tensor) -> Tensor:
    """What scores at many points are all orthogonal to, with shape (C, D): ridges and invariances, exact ones first.

    The points are around x, with shape (D), in units of scales of its coordinates; the noise is standard normal, with
    shape (m, D), m > D.
    """
    radii = torch.logspace(-1, 1, len(noise), dtype=x.dtype, device=x.device).unsqueeze(-1)
    far = torch.logspace(0, 6, len(noise), dtype=x.dtype, device=x.device).unsqueeze(-1)
    basis, rows = noise.new_zeros(0, len(x)), []
    # Again from points far out along what seems flat: what is only much wider than the rest shows there. Differences
    # are too coarse for that.
    for _ in range(NUM_PASSES if target.differentiable else 1):
        shift = radii * noise if not len(basis) else noise + far * (noise @ basis.T @ basis)
        score = _score(target, x + scales * shift, FINITE_STEP * scales) * scales
        rows.append(score)
        basis = _orthogonal_to(torch.cat(rows))
        if not len(basis):
            return basis
    basis = _reduced(scaled(basis * scales))
    return torch.cat([_with_small_numbers(basis), basis])


def scalings(target: CountedTarget, x: Tensor, scales: Tensor, noise: Tensor) -> Tensor:
    """Exponents w, with shape (C, D), for which log R may be the same at c^w x for all c > 0: x1 x2 has (1, -1).

    The arguments are those of `flat_directions`: it is what x times the score is orthogonal to.
    """
    points = x + scales * noise
    basis = _orthogonal_to(points * _score(target, points, FINITE_STEP * scales))
    basis = _reduced(scaled(basis))
    return torch.cat([_with_small_numbers(basis), basis, differences(x[None])])


def _orthogonal_to(rows: Tensor) -> Tensor:
    """A basis, with shape (C, D), of what is orthogonal to all rows, with shape (n, D), that are numbers and not zero.

    Empty if there are none.
    """
    size = rows.abs().amax(-1, keepdim=True)
    rows = (rows / size)[(size > TINY).squeeze(-1) & rows.isfinite().all(-1)]
    if not len(rows):
        return rows
    rows = rows / rows.norm(dim=-1, keepdim=True)
    _, size, vectors = torch.linalg.svd(rows, full_matrices=len(rows) < rows.shape[1])
    size = torch.nn.functional.pad(size, (0, len(vectors) - len(size)))
    return vectors[size < FLAT * math.sqrt(len(rows))]


def _reduced(basis: Tensor) -> Tensor:
    """The same space by vectors each of which has a coordinate of its own: translations come out as such."""
    basis = basis.clone()
    for k in range(len(basis)):
        pivot = basis[k].abs().argmax()
        basis[k] = basis[k] / basis[k, pivot]
        others = torch.arange(len(basis), device=basis.device) != k
        basis[others] = basis[others] - basis[others, pivot].unsqueeze(-1) * basis[k]
    return scaled(basis)


def _with_small_numbers(v: Tensor) -> Tensor:
    """Those directions that are ratios of small whole numbers, as exactly these."""
    found = []
    for row in v:
        for denominator in range(1, MAX_DENOMINATOR + 1):
            whole = (row * denominator).round()
            if (row - whole / denominator).abs().max() < 1e-5:
                found.append(whole / denominator)
                break
    return torch.stack(found) if found else v[:0]


def _score(target: CountedTarget, x: Tensor, step: Tensor) -> Tensor:
    """The gradient of log R at points x, with shape (n, D), by differences of `step`, with shape (D), if need be.

    Zero where the target gives up.
    """
    try:
        if target.differentiable:
            return target.log_prob_and_score(x)[1]
        steps = torch.diag(step)
        points = x[:, None, None] + torch.stack([steps, -steps])
        ahead, behind = target.log_prob(points.flatten(0, 2)).view(len(x), 2, -1).unbind(1)
    except Exception:
        return torch.zeros_like(x)
    return (ahead - behind) / (2 * step)


def runaways(target: CountedTarget, x: Tensor, scales: Tensor, noise: Tensor) -> Tensor:
    """Where points x of finite density run away to, and where the density falls least far out, with shape (C, D).

    The arguments are those of `flat_directions`, but for the points, with shape (n, D).
    """
    middle = x.median(0).values
    shift = (x - middle) / scales
    farthest = shift.norm(dim=-1).argsort(descending=True)[:4]
    found = [x[farthest] - middle, x[farthest]]
    if 2 < len(x) and x.shape[1] > 1:
        spread = torch.linalg.eigh((shift / shift.abs().amax().clamp(min=TINY)).T.cov()).eigenvectors[:, -2:]
        found += [(spread * scales.unsqueeze(-1)).T, -(spread * scales.unsqueeze(-1)).T]
    # Ascent on a large sphere, in units of the scales.
    differentiable = target.differentiable
    v = noise[: NUM_CLIMBING if differentiable else max(1, MAX_BY_DIFFERENCES // len(middle))]
    for step in torch.logspace(0, -1.5, CLIMBING_STEPS if differentiable else CLIMBING_STEPS // 2).tolist():
        v = v / v.norm(dim=-1, keepdim=True)
        score = _score(target, middle + CLIMBING_RADIUS * scales * v, 1e-3 * CLIMBING_RADIUS * scales)
        uphill = torch.nan_to_num(score * scales, 0.0, 0.0, 0.0)
        uphill = uphill / uphill.abs().amax(-1, keepdim=True).clamp(min=TINY)
        uphill = uphill - (uphill * v).sum(-1, keepdim=True) * v
        v = v + step * uphill / uphill.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    found.append(v * scales)
    return scaled(torch.cat(found))
