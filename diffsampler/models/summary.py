"""A table of parameters by weighted draws."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.log_z.verdict import TOO_FEW

HDI_PROB = 0.94
ROUNDING = 1e-13  # relative: of what is 1 by a sum


@dataclass(frozen=True)
class Summary:
    """A row for each number of each parameter that is not the same in all draws; print it.

    Attributes:
        rows: by label, such as `theta[0]`, the figures by name: mean, sd, the ends of the interval, such as `hdi_3%`
            and `hdi_97%`, `ess` (independent draws with the same error of the mean) and `mcse` (that error).
    """

    rows: dict[str, dict[str, float]]

    def __getitem__(self, label: str) -> dict[str, float]:
        if label not in self.rows:
            raise InputError(f"there is no row {label!r}; there are {', '.join(self.rows)}.")
        return self.rows[label]

    def to_dict(self) -> dict[str, dict[str, float]]:
        """For JSON."""
        return self.rows

    def __str__(self) -> str:
        columns = list(next(iter(self.rows.values())))
        width = max(len(label) for label in self.rows)
        lines = [" " * width + "".join(f"{column:>11}" for column in columns)]
        for label, row in self.rows.items():
            cells = (f"{row[column]:>11.0f}" if column == "ess" else f"{row[column]:>11.4g}" for column in columns)
            lines.append(f"{label:<{width}}" + "".join(cells))
        return "\n".join(lines)


def summarise(
    values: Mapping[str, Tensor], log_weight: Tensor, hdi_prob: float, labels: Mapping[str, list[list[Any]]]
) -> Summary:
    """The table of weighted values.

    Arguments:
        values: by name, each with shape (m, *shape).
        log_weight: with shape (m).
        hdi_prob: the mass of the interval, the narrowest that holds it.
        labels: of the entries along each dimension of a parameter, by its name; else they are counted.

    Raises:
        InputError: if hdi_prob is not between 0 and 1.
    """
    if not (isinstance(hdi_prob, int | float) and 0 < hdi_prob < 1):
        raise InputError(f"hdi_prob must be between 0 and 1, got {hdi_prob!r}.")
    share = log_weight.softmax(0)
    kept = share > 0
    share = share[kept]
    effective = 1 / share.square().sum()
    low_name, high_name = (f"hdi_{100 * q:.3g}%" for q in (0.5 * (1 - hdi_prob), 0.5 * (1 + hdi_prob)))
    rows: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        varies = varying(value).tolist()
        for is_shown, (label, column) in zip(varies, columns_of(name, value[kept], labels.get(name, [])), strict=True):
            if not is_shown:
                continue
            mean = (share * column).sum()
            away = column - mean
            variance = (share * away.square()).sum()
            error = (share * away).square().sum().sqrt()
            if effective < TOO_FEW:  # the mean is nearly the heaviest draw, and that error nearly none
                error = error.maximum((variance / effective).sqrt())
            low, high = _narrowest(column, share, hdi_prob)
            rows[label] = {
                "mean": float(mean),
                "sd": float(variance.sqrt()),
                low_name: low,
                high_name: high,
                "ess": float(variance / error.square()) if error > 0 else float(len(share)),
                "mcse": float(error),
            }
    return Summary(rows)


def varying(value: Tensor) -> Tensor:
    """Which numbers of a parameter, flat, are not the same in all draws; all where none of them vary.

    Zeros of a triangular matrix are, and the ones on the diagonal of a matrix of correlations.

    Arguments:
        value: with shape (m, *shape).
    """
    flat = value.reshape(len(value), -1)
    varies = ~((flat - flat[0]).abs() <= ROUNDING * flat[0].abs()).all(0)  # what is no number does
    return varies | ~varies.any()


def entries(name: str, shape: tuple[int, ...], labels: list[list[Any]]) -> Iterator[str]:
    """Labels of all numbers of a parameter, such as theta[0], theta[1], in their order."""
    if not shape:
        yield name
        return
    along = [
        labels[k] if k < len(labels) and len(labels[k]) == size else list(range(size)) for k, size in enumerate(shape)
    ]
    for index in product(*along):
        yield f"{name}[{', '.join(map(str, index))}]"


def columns_of(name: str, value: Tensor, labels: list[list[Any]]) -> Iterator[tuple[str, Tensor]]:
    """Every number of a parameter by its label, with shape (n), for values with shape (n, *shape)."""
    return zip(entries(name, tuple(value.shape[1:]), labels), value.reshape(len(value), -1).T, strict=True)


def _narrowest(column: Tensor, share: Tensor, mass: float) -> tuple[float, float]:
    """The ends of the shortest interval between draws that holds a share of the weight."""
    column, order = column.sort()
    below = share[order].cumsum(0)
    start = torch.cat([below.new_zeros(1), below[:-1]])
    last = torch.searchsorted(below, (start + mass * below[-1]).clamp(max=float(below[-1])))
    fits = start + mass * below[-1] <= below[-1] * (1 + 1e-12)
    widths = torch.where(fits, column[last.clamp(max=len(column) - 1)] - column, torch.inf)
    first = int(widths.argmin())
    return float(column[first]), float(column[last[first].clamp(max=len(column) - 1)])
