"""Figures of a model's parameters, by name and within their constraints."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.models.names import values_of
from diffsampler.models.summary import Summary, varying
from diffsampler.report import style
from diffsampler.report.axes import draw_histogram, finish, interval, new_figure, save_all, to_numpy, weights
from diffsampler.target import Target

MAX_PARAMETERS = 24
TAIL = 0.002  # of the weight at either end, which is out of view


def plot_parameters(values: Mapping[str, Tensor], log_weight: Tensor, summary: Summary) -> Figure:
    """The weighted distribution of each number, with its mean and its highest-density interval.

    Arguments:
        values: by name, each with shape (n, *shape).
        log_weight: with shape (n).
        summary: of the same draws, by labels.
    """
    weight = weights(log_weight)
    columns = [
        column for value in values.values() for column in to_numpy(value.reshape(len(value), -1)[:, varying(value)]).T
    ]
    labels = list(summary.rows)
    count = min(len(columns), MAX_PARAMETERS)
    across = min(count, 4)
    rows = -(-count // across)
    figure, axes = new_figure(max(2.6 * across, 6.0), 2.0 * rows + 1.0, rows, across)
    for ax in axes[count:]:
        ax.remove()
    for ax, label, column in zip(axes, labels, columns, strict=False):
        row = list(summary[label].values())
        view = _view(column, weight)
        draw_histogram(ax, column, view, weight, label="weighted samples", **style.FILLED)
        ax.axvspan(*row[2:4], label="highest-density interval", **style.BAND)
        ax.axvline(row[0], color=style.BLUE, lw=1.6, label="mean")
        ax.set(xlim=view, xlabel=label, yticks=[])
        ax.spines["left"].set_visible(False)
    more = "" if count == len(columns) else f", the first {count} of {len(columns)}"
    figure.suptitle(f"Parameters{more}", fontsize=11, x=0.02, ha="left")
    return finish(figure, axes[0], "")


def _view(column: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Where all but the tails of the weight lie."""
    order = np.argsort(column)
    below = np.cumsum(weight[order])
    ends = np.searchsorted(below / below[-1], [TAIL, 1 - TAIL]).clip(max=len(column) - 1)
    low, high = interval(column[order][ends])
    return max(low, float(column.min())), min(high, float(column.max()))  # bars beyond an edge would show what is not


def save_parameter_figures(
    folder: Path, target: Target, x: Tensor, log_weight: Tensor, summary: Summary | None
) -> list[Path]:
    """`parameters.png` of weighted draws x, with shape (n, D), where the target's values have names and a summary."""
    if summary is None:
        return []
    return save_all(folder, {"parameters": lambda: plot_parameters(values_of(target, x), log_weight, summary)})
