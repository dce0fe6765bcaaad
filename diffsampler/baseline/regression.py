"""One coordinate given others: a normal whose mean is quadratic and whose log-width is linear, with few terms."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsampler.baseline.pursuit import MEAN_GAIN, Pursuit, features, with_one

SCALE_GAIN = 0.01  # nats a point that a term of the log-width must bring beyond its price
SURELY_NOTHING = 0.1  # of that: what a term promises to first order, below which it is not tried
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


def log_scale_of(fit: Fit, y: Tensor) -> Tensor:
    """The log-width, with shape (n)."""
    if not fit.columns:
        return fit.log_scale[0].expand(len(y))
    return (fit.log_scale[0] + y[:, fit.columns] @ fit.log_scale[1:]).clamp(*fit.bounds)


class Conditionals:
    """Coordinates one after the other, each normal given what was there before and those before it.

    Backwards, from coordinates to z, in a few products of matrices; forwards one by one.

    Arguments:
        fits: of the coordinates, first to last.
    """

    def __init__(self, fits: tuple[Fit, ...]) -> None:
        self.fits, dim = fits, len(fits)
        pairs, term = torch.cat([fit.pairs for fit in fits], 1).unique(dim=1, return_inverse=True)
        column = torch.cat([torch.full_like(fit.pairs[0], i) for i, fit in enumerate(fits)])
        like = fits[0].mean
        self._pairs, self._mean = pairs, like.new_zeros(pairs.shape[1], dim)
        self._mean[term, column] = torch.cat([fit.mean for fit in fits])
        # No width tells of the last coordinate, nor of one that comes after.
        known = 1 + max((column for fit in fits for column in fit.columns), default=0)
        self._log_scale = like.new_zeros(known + 1, dim)
        for i, fit in enumerate(fits):
            self._log_scale[[0, *(column + 1 for column in fit.columns)], i] = fit.log_scale
        self._low, self._high = like.new_tensor([fit.bounds for fit in fits]).unbind(-1)

    def forward(self, z: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """y and log |det dy/dz|, with shapes (n, D) and (n), for z, (n, D), and what was before, (n, C)."""
        num_before, log_det = before.shape[1], 0.0
        for i, fit in enumerate(self.fits):
            log_scale = log_scale_of(fit, before)
            next_one = features(with_one(before), fit.pairs) @ fit.mean + log_scale.exp() * z[:, i]
            before, log_det = torch.cat([before, next_one.unsqueeze(-1)], -1), log_det + log_scale
        return before[:, num_before:], log_det

    def inverse(self, y: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dy/dz|, likewise, for y, (n, D)."""
        known = with_one(torch.cat([before, y], -1))
        log_scale = known[:, : len(self._log_scale)] @ self._log_scale
        log_scale = log_scale.clamp(self._low, self._high)
        mean = features(known, self._pairs) @ self._mean
        return (y - mean) * (-log_scale).exp(), log_scale.sum(-1)


def fit_conditionals(y: Tensor, first: int, weight: Tensor) -> tuple[float, tuple[Fit, ...]]:
    """Columns of y, with shape (n, D), from the first one on, each given all before it, for weights that sum to 1.

    Returns:
        The log-likelihood a point, as of `fit_conditional`, and the fits.
    """
    pursuit = Pursuit(y, weight)
    found = [fit_conditional(y, column, list(range(column)), weight, pursuit) for column in range(first, y.shape[1])]
    return sum(score for score, _ in found), tuple(fit for _, fit in found)


def fit_conditional(y: Tensor, column: int, others: list[int], weight: Tensor, pursuit: Pursuit) -> tuple[float, Fit]:
    """A column of y, with shape (n, D), given others, for weights that sum to 1 and the pursuit of y.

    Returns:
        The log-likelihood a point, without the constant and less the price of the parameters, and the fit.
    """
    price = _price(weight)
    pairs = pursuit.pairs(column, others, price).to(y.device)
    pairs = torch.cat([pairs.new_zeros(2, 1), pairs], 1)
    y, before = y[:, column], y[:, others]
    terms = features(with_one(before), pairs)
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
        best = int(overlap.argmax())
        # A Newton step from zero gains the square of the slope, g, over twice the curvature, 2.
        if 0.25 * float(overlap[best]) ** 2 < SURELY_NOTHING * (2 * price + SCALE_GAIN):
            break
        trial = [*columns, best]
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
