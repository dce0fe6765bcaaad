"""Which products of other coordinates explain one of them: orthogonal matching pursuit from inner products."""

import math

import numpy as np
import torch
from torch import Tensor

MAX_PRODUCTS = 16  # coordinates whose products are all candidates; of more, the squares alone
MEAN_GAIN = 0.001  # nats a point that a term must bring beyond its price
DEPENDENT = 1e-10  # a candidate that the chosen ones explain but for this share says nothing of its own
REFRESHED = 1e-4  # differences of inner products lose digits: below this share of what there was, they are made anew


class Pursuit:
    """Of coordinates y, with shape (n, D), of points whose weights sum to 1.

    Inner products of all candidates are formed once, for every coordinate and choice of others: a step costs as many
    operations as there are candidates and terms, whatever the number of points.
    """

    def __init__(self, y: Tensor, weight: Tensor) -> None:
        dim = y.shape[1]
        one = torch.arange(1, dim + 1)
        crossed = 1 + torch.triu_indices(min(dim, MAX_PRODUCTS + 1), min(dim, MAX_PRODUCTS + 1), 1)
        pairs = torch.cat([torch.stack([torch.zeros_like(one), one]), one.expand(2, dim), crossed], 1)
        centred = features(with_one(y), pairs.to(y.device))
        centred = (centred - weight @ centred) * weight.sqrt().unsqueeze(-1)
        centred = centred / centred.norm(dim=0).clamp(min=1e-300)
        usable = centred.isfinite().all(0) & (centred != 0).any(0)
        self._directions = centred.nan_to_num(0.0, 0.0, 0.0)
        self._products = (self._directions.T @ self._directions).cpu().numpy()
        self._pairs, self._usable = pairs.numpy(), usable.cpu().numpy()
        self._most = int(min(0.1 / float(weight.square().sum().clamp(min=1e-30)), 1e9))

    def pairs(self, column: int, others: list[int], price: float) -> Tensor:
        """Columns of (1, y[:, others]) whose products explain the column best, one by one, while each is worth it.

        Arguments:
            column: of y, which is not among the others.
            others: whose squares are candidates too, and products of two, unless there are more than `MAX_PRODUCTS`;
                products are of the first `MAX_PRODUCTS + 1` columns of y alone, whichever the others are.
            price: nats a point, of a term.

        Returns:
            Indices with shape (2, F).
        """
        position = np.full(self._directions.shape[1] + 1, -1)
        position[[0, *(other + 1 for other in others)]] = range(len(others) + 1)
        first, second = position[self._pairs]
        allowed = (first >= 0) & (second >= 0) & self._usable
        if len(others) > MAX_PRODUCTS:
            allowed &= (first == 0) | (first == second)
        rows = allowed.nonzero()[0]
        chosen = rows[self._chosen(column, rows, price)]
        return torch.as_tensor(np.stack([first[chosen], second[chosen]]))

    def _chosen(self, column: int, rows: np.ndarray, price: float) -> list[int]:
        """Positions among the rows, those of the candidates."""
        if not self._usable[column] or not len(rows):
            return []
        overlap, left = self._products[column, rows].copy(), 1.0  # with what is left of the column, and its square
        squares = np.ones(len(rows))  # of what is left of the candidates
        usable = np.ones(len(rows), dtype=bool)
        reduced = np.empty((0, len(rows)))  # rows of a Cholesky factor
        chosen: list[int] = []
        known = 1.0
        while len(chosen) < min(self._most, len(rows)) and left > 0:
            gain = np.where(usable, overlap * overlap / np.maximum(squares, DEPENDENT), 0.0)
            k = int(gain.argmax())
            if -0.5 * math.log1p(-min(gain[k] / left, 1 - 1e-15)) < 2 * price + MEAN_GAIN:
                break
            chosen.append(k)
            root = math.sqrt(squares[k])
            row = (self._products[rows[k], rows] - reduced[:, k] @ reduced) / root
            left -= float(gain[k])
            overlap = overlap - row * (overlap[k] / root)
            squares = squares - row * row
            usable &= squares > DEPENDENT
            usable[k] = False
            reduced = np.vstack([reduced, row])
            if left < REFRESHED * known:
                overlap, left = self._anew(column, rows, chosen)
                known = left
        return chosen

    def _anew(self, column: int, rows: np.ndarray, chosen: list[int]) -> tuple[np.ndarray, float]:
        """Overlaps of candidates with what the chosen ones leave of a column, and its square."""
        target = self._directions[:, [column]]
        terms = self._directions[:, torch.as_tensor(rows[chosen])]
        basis = torch.linalg.qr(terms)[0]
        for _ in range(2):  # once loses digits
            target = target - basis @ (basis.T @ target)
        overlap = (self._directions.T @ target).squeeze(-1).cpu().numpy()[rows]
        return overlap, float(target.square().sum())


def with_one(y: Tensor) -> Tensor:
    """(1, y), with shape (n, D + 1), for y with shape (n, D)."""
    return torch.cat([y.new_ones(len(y), 1), y], -1)


def features(y: Tensor, pairs: Tensor) -> Tensor:
    """Products of the named columns, with shape (n, F), for y with shape (n, D), which begins with ones."""
    return y[:, pairs[0]] * y[:, pairs[1]]
