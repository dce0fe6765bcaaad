"""Figures of what a family says as a function of the context."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.log_z import GRADES
from diffsampler.report import style
from diffsampler.report.axes import finish, new_figure, to_numpy

COLOURS = dict(zip(GRADES, (style.BLUE, style.ORANGE, style.GREY), strict=True))


def plot_curve(
    context: Tensor,
    ends: Tensor,
    grades: Sequence[str],
    name: str,
    known: Sequence[float | None],
    is_between: Sequence[bool],
) -> Figure:
    """log Z and its 95 % intervals, with shapes (K) and (K, 3), by the colour of the verdict.

    Arguments:
        context: the number along the axis, with shape (K).
        ends: log Z and the ends of the interval.
        grades: of the verdicts.
        name: of the number.
        known: exact values, where there are some.
        is_between: which have no draws of their own; their points are small.
    """
    figure, (ax,) = new_figure(6.4, 4.2)
    order = np.argsort(to_numpy(context))
    x, values = to_numpy(context)[order], to_numpy(ends)[order]
    clipped = np.where(np.isfinite(values), values, values[:, :1])
    ax.plot(x, values[:, 0], color=style.BLUE, lw=1.0, alpha=0.5)
    ax.fill_between(x, clipped[:, 1], clipped[:, 2], **style.BAND)
    for grade in GRADES:
        for small in (False, True):
            mine = np.array([grades[row] == grade and is_between[row] == small for row in order])
            if mine.any():
                errors = np.abs(clipped[mine, 1:] - clipped[mine, :1]).T
                label = f"{grade}, by its neighbours' draws" if small else grade
                look = {"fmt": "o", "ms": 2.5 if small else 5, "capsize": 0 if small else 2, "lw": 1.2}
                ax.errorbar(x[mine], values[mine, 0], errors, color=COLOURS[grade], label=label, **look)
    exact = [(float(context[row]), known[row]) for row in order if known[row] is not None]
    if exact:
        ax.plot(*zip(*exact, strict=True), "x", color=style.BLACK, ms=7, label="exact")
    ax.set(xlabel=name, ylabel="log Z")
    return finish(figure, ax, "log Z of a family")


def plot_thermodynamics(
    beta: Tensor, log_z: Tensor, energy: tuple[Tensor, Tensor], heat_capacity: tuple[Tensor, Tensor]
) -> Figure:
    """log Z, and energy and heat capacity with two standard errors, against beta, all with shape (K)."""
    figure, axes = new_figure(10.2, 3.6, 1, 3)
    rows = ("log Z", (log_z, 0 * log_z)), ("energy", energy), ("heat capacity", heat_capacity)
    for ax, (name, (value, error)) in zip(axes, rows, strict=True):
        _line(ax, to_numpy(beta), to_numpy(value), to_numpy(error))
        ax.set(xlabel="beta", ylabel=name)
    return finish(figure, axes[0], "One density at all temperatures")


def _line(ax: Axes, x: np.ndarray, value: np.ndarray, error: np.ndarray) -> None:
    order = np.argsort(x)
    x, value, error = x[order], value[order], error[order]
    ax.plot(x, value, "o-", color=style.BLUE, ms=4, lw=1.2)
    ax.fill_between(x, value - 2 * error, value + 2 * error, **style.BAND)
