"""Figures of what a family says as a function of the context."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.log_z import GRADES
from diffsampler.report import style
from diffsampler.report.axes import finish, new_figure, to_numpy

ROUNDING = 1e-9  # of a number, by which it does not vary
LINE = 1e-6  # of the largest offset from the mean, by which contexts may be off a line
MOST_NAMED = 3, 12  # numbers, contexts
COLOURS = dict(zip(GRADES, (style.BLUE, style.ORANGE, style.GREY), strict=True))


def plot_curve(
    contexts: Tensor,
    ends: Tensor,
    grades: Sequence[str],
    names: Sequence[str],
    known: Sequence[float | None],
    is_between: Sequence[bool],
) -> Figure:
    """log Z and its 95 % intervals, with shapes (K) and (K, 3), by the colour of the verdict.

    Arguments:
        contexts: with shape (K, C). Along the axis is the first number that varies; where they are not on one line,
            points are beside each other, unconnected, as no single number orders them.
        ends: log Z and the ends of the interval.
        grades: of the verdicts.
        names: of the C numbers.
        known: exact values, where there are some.
        is_between: which have no draws of their own; their points are small.
    """
    figure, (ax,) = new_figure(6.4, 4.2)
    column = _along_a_line(contexts)
    places = np.arange(1, len(contexts) + 1) if column is None else to_numpy(contexts[:, column])
    order = np.argsort(places, kind="stable")
    x, values = places[order], to_numpy(ends)[order]
    clipped = np.where(np.isfinite(values), values, values[:, :1])
    if column is not None:
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
    exact = [(places[row], known[row]) for row in order if known[row] is not None]
    if exact:
        ax.plot(*zip(*exact, strict=True), "x", color=style.BLACK, ms=7, label="exact")
    ax.set(xlabel="context" if column is None else names[column], ylabel="log Z")
    if column is None:
        _name_contexts(ax, contexts, names)
    return finish(figure, ax, "log Z of a family")


def _along_a_line(contexts: Tensor) -> int | None:
    """The first number that varies, of contexts with shape (K, C) on one line; None if they are not."""
    offset = contexts.double() - contexts.double().mean(0)
    size = offset.abs().amax(0)
    varying = size > ROUNDING * contexts.double().abs().amax(0)
    if not varying.any():
        return 0
    found = (offset[:, varying] / size[varying]).T  # each number in its own unit
    column = int(varying.nonzero()[0])
    signs = (found * found[0]).sum(-1, keepdim=True).sign()
    return column if bool(((found * signs - found[0]).abs() < LINE).all()) else None


def _name_contexts(ax: Axes, contexts: Tensor, names: Sequence[str]) -> None:
    """Few numbers of few contexts below their points."""
    if len(names) <= MOST_NAMED[0] and len(contexts) <= MOST_NAMED[1]:
        labels = ["\n".join(f"{value:.3g}" for value in context) for context in contexts.tolist()]
        ax.set_xticks(range(1, len(contexts) + 1), labels)
        ax.set_xlabel(", ".join(names))
    else:
        ax.set_xlabel("context, in the order given")


def plot_thermodynamics(
    beta: Tensor,
    log_z: Tensor,
    energy: tuple[Tensor, Tensor],
    heat_capacity: tuple[Tensor, Tensor],
    grades: Sequence[str],
) -> Figure:
    """log Z, energy and heat capacity with intervals of 95 %, against beta, with shape (K).

    Arguments:
        beta: inverse temperatures.
        log_z: with the ends of its interval, with shape (K, 3).
        energy, heat_capacity: with errors, of which two are an interval's half.
        grades: of the verdicts, by which points are coloured.
    """
    figure, axes = new_figure(10.2, 3.6, 1, 3)
    rows: list[tuple[str, Tensor]] = [("log Z", log_z)]
    for name, (value, error) in ("energy", energy), ("heat capacity", heat_capacity):
        rows.append((name, torch.stack([value, value - 2 * error, value + 2 * error], -1)))
    for ax, (name, ends) in zip(axes, rows, strict=True):
        _line(ax, to_numpy(beta), to_numpy(ends), grades)
        ax.set(xlabel="beta", ylabel=name)
    return finish(figure, axes[0], "One density at all temperatures")


def _line(ax: Axes, x: np.ndarray, ends: np.ndarray, grades: Sequence[str]) -> None:
    order = np.argsort(x)
    x, ends = x[order], ends[order]
    ends = np.where(np.isfinite(ends), ends, ends[:, :1])
    ax.plot(x, ends[:, 0], color=style.BLUE, lw=1.2)
    ax.fill_between(x, ends[:, 1], ends[:, 2], **style.BAND)
    for grade in GRADES:
        mine = np.array([grades[row] == grade for row in order])
        if mine.any():
            ax.plot(x[mine], ends[mine, 0], "o", ms=4, color=COLOURS[grade], label=grade)
