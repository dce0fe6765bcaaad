"""One coordinate given others: a normal whose mean is quadratic and whose log-width is linear, with few terms."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_PRODUCTS = 16  # coordinates whose products are all candidates; of more, the squares alone
MEAN_GAIN, SCALE_GAIN = 0.001, 0.01  # nats a point that a term must bring beyond its price
DEPENDENT = 1e-5  # a candidate that the chosen ones explain but for this much says nothing of its own
NUM_ALTERNATIONS, NUM_NEWTON = 3, 20


@dataclass(frozen=True)
class Fit:
    """What `fit_conditional` found.

    Attributes:
        pairs: of columns of (1, y) whose products are the terms of the mean, with shape (2, F).
        mean: their coefficients, with shape (F).
        columns: of y that the log-width is linear in.
        log_scale: coefficients of 1 and those columns.
        bounds: of the log-width: little beyond where points were.
    """

    pairs: Tensor
    mean: Tensor
    columns: list[int]
    log_scale: Tensor
    bounds: tuple[float, float]

    @property
    def is_bent(self) -> bool:
        """Whether it is more than linear with one width."""
        return bool((self.pairs[0] > 0).any()) or bool(self.columns)


def features(y: Tensor, pairs: Tensor) -> Tensor:
    """Products of the named columns of (1, y), with shape (n, F), for y with shape (n, k)."""
    with_one = torch.cat([torch.ones_like(y[:, :1]) if y.shape[1] else y.new_ones(len(y), 1), y], -1)
    return with_one[:, pairs[0]] * with_one[:, pairs[1]]


def log_scale_of(fit: Fit, y: Tensor) -> Tensor:
    """The log-width, with shape (n)."""
    if not fit.columns:
        return fit.log_scale[0].expand(len(y))
    return (fit.log_scale[0] + y[:, fit.columns] @ fit.log_scale[1:]).clamp(*fit.bounds)


def fit_conditional(y: Tensor, before: Tensor, weight: Tensor) -> tuple[float, Fit]:
    """y, with shape (n), given `before`, with shape (n, k), for weights that sum to 1.

    Returns:
        The log-likelihood a point, without the constant and less the price of the parameters, and the fit.
    """
    price = _price(weight)
    k = before.shape[1]
    ones = torch.zeros(k, dtype=torch.long, device=y.device)
    products = torch.triu_indices(k, k, device=y.device) if k <= MAX_PRODUCTS else torch.arange(k).expand(2, k)
    pairs = torch.cat([torch.stack([ones, torch.arange(1, k + 1, device=y.device)]), 1 + products], 1)
    chosen = _pursue(y, features(before, pairs), weight, price) if k else []
    pairs = torch.cat([pairs.new_zeros(2, 1), pairs[:, chosen]], 1)
    terms = features(before, pairs)
    size = terms.abs().amax(0).clamp(min=1e-300)
    log_scale, columns = torch.zeros_like(y), []
    for _ in range(NUM_ALTERNATIONS):
        root = (weight * (-2 * log_scale).exp()).sqrt()
        if columns:
            kept = _worth_it(terms / size * root.unsqueeze(-1), y * root, 2 * price + MEAN_GAIN)
            pairs, terms, size = pairs[:, kept], terms[:, kept], size[kept]
        mean = _least_squares(terms / size * root.unsqueeze(-1), y * root) / size
        squares = (y - terms @ mean).square() + 1e-24
        coefficients, columns = _fit_log_scale(squares, before, weight, price)
        log_scale = coefficients[0] + before[:, columns] @ coefficients[1:]
        if not columns:
            break
    score = float(weight @ (-log_scale - 0.5 * squares * (-2 * log_scale).exp()))
    bounds = float(log_scale.min()) - 1.0, float(log_scale.max()) + 1.0
    return score - price * (len(mean) + len(coefficients)), Fit(pairs, mean, columns, coefficients, bounds)


def _least_squares(terms: Tensor, y: Tensor) -> Tensor:
    """The coefficients, with shape (F). LAPACK's gelsy, torch's choice on a CPU, rounds one call unlike the next."""
    if not (terms.isfinite().all() and y.isfinite().all()):
        # Products of coordinates that overflow explain nothing.
        usable = terms.isfinite().all(0)
        terms, y = torch.where(usable, terms, 0.0), y.nan_to_num(0.0, 0.0, 0.0)
    driver = None if terms.is_cuda else "gelsd"
    return torch.linalg.lstsq(terms, y.unsqueeze(-1), driver=driver).solution[:, 0]


def _price(weight: Tensor) -> float:
    """Of a parameter, in nats a point, by BIC."""
    num_effective = float(1 / weight.square().sum())
    return 0.5 * math.log(num_effective) / num_effective


def _pursue(y: Tensor, candidates: Tensor, weight: Tensor, price: float) -> list[int]:
    """Orthogonal matching pursuit: the candidates that explain y best, one by one, while each is worth its price."""
    root = weight.sqrt()
    directions = (candidates - weight @ candidates) * root.unsqueeze(-1)
    directions = directions / directions.norm(dim=0).clamp(min=1e-300)
    usable = directions.isfinite().all(0)
    directions = directions.nan_to_num(0.0)
    residual = (y - weight @ y) * root
    left = float(residual.square().sum())
    most = int(min(0.1 / float(weight.square().sum().clamp(min=1e-30)), 1e9))
    chosen: list[int] = []
    while len(chosen) < min(most, candidates.shape[1]) and left > 0:
        overlap = (residual @ directions).abs() * usable
        k = int(overlap.argmax())
        share = min(float(overlap[k]) ** 2 / left, 1 - 1e-15)
        if -0.5 * math.log1p(-share) < 2 * price + MEAN_GAIN:
            break
        chosen.append(k)
        direction = directions[:, k].clone()
        for _ in range(2):  # once loses digits to the next
            residual = residual - direction * (direction @ residual)
        directions = directions - torch.outer(direction, direction @ directions)
        norm = directions.norm(dim=0)
        usable = usable & (norm > DEPENDENT)
        usable[k] = False
        directions = directions / norm.clamp(min=1e-300)
        left = float(residual.square().sum())
    return chosen


def _worth_it(terms: Tensor, y: Tensor, least: float) -> list[int]:
    """The first term, and those without which y, in units of its width, would lose more than `least` nats a point.

    Where widths differ, the widest points have led the pursuit: much of what it has chosen explains their noise.
    """
    kept = list(range(terms.shape[1]))
    while len(kept) > 1:
        inverse = torch.linalg.pinv(terms[:, kept])
        lost = 0.5 * (inverse @ y).square() / inverse.square().sum(-1).clamp(min=1e-300)
        worst = 1 + int(lost[1:].argmin())
        if lost[worst] >= least:
            break
        del kept[worst]
    return kept


def _fit_log_scale(squares: Tensor, before: Tensor, weight: Tensor, price: float) -> tuple[Tensor, list[int]]:
    """The log-width behind squared residuals, by maximum likelihood: coefficients, and columns that are worth it."""
    coefficients = 0.5 * torch.log(weight @ squares).reshape(1)
    score, columns = -float(coefficients[0]) - 0.5, []
    if not before.shape[1]:
        return coefficients, columns
    centred = before - weight @ before
    spread = (weight @ centred.square()).sqrt().clamp(min=1e-300)
    while len(columns) < before.shape[1]:
        log_scale = coefficients[0] + before[:, columns] @ coefficients[1:]
        excess = (squares * (-2 * log_scale).exp() - 1).clamp(max=20.0)
        overlap = ((weight * excess) @ centred / spread).abs()
        overlap[columns] = 0
        trial = [*columns, int(overlap.argmax())]
        terms = torch.cat([torch.ones_like(before[:, :1]), before[:, trial]], -1)
        found, trial_score = _newton(torch.cat([coefficients, coefficients.new_zeros(1)]), terms, squares, weight)
        if trial_score - score < 2 * price + SCALE_GAIN:
            break
        coefficients, score, columns = found, trial_score, trial
    return coefficients, columns


def _newton(start: Tensor, terms: Tensor, squares: Tensor, weight: Tensor) -> tuple[Tensor, float]:
    """Ascend the concave log-likelihood of log-widths `terms @ coefficients`."""

    def value(coefficients: Tensor) -> float:
        log_scale = terms @ coefficients
        return float(weight @ (-log_scale - 0.5 * squares * (-2 * log_scale).exp()))

    coefficients, now = start, value(start)
    ridge = 1e-9 * torch.eye(len(start), dtype=start.dtype, device=start.device)
    for _ in range(NUM_NEWTON):
        ratio = weight * squares * (-2 * (terms @ coefficients)).exp()
        gradient = (ratio - weight) @ terms
        hessian = 2 * (terms * ratio.unsqueeze(-1)).T @ terms
        unit = hessian.diagonal().sqrt().clamp(min=1e-150)
        step = torch.linalg.solve(hessian / torch.outer(unit, unit) + ridge, gradient / unit) / unit
        size = 1.0
        while size > 1e-4 and not value(coefficients + size * step) >= now:
            size *= 0.5
        if size <= 1e-4:
            break
        coefficients = coefficients + size * step
        before, now = now, value(coefficients)
        if now - before < 1e-6:
            break
    return coefficients, now
