"""Figures of log Z: over training, by the log-weights, and all estimates side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.log_z import LogZEstimate
from diffsampler.report import style
from diffsampler.report.axes import (
    DEEP,
    draw_histogram,
    finish,
    interval,
    mark_truth,
    new_figure,
    not_too_deep,
    to_numpy,
    weights,
)


def plot_training(history: Sequence[dict[str, Any]], true_log_z: float | None = None) -> Figure:
    """ELBO, log Z with its interval, and ESS over training; `history` is what `fit` returns.

    The view fits the second half of the run where early bounds are far away. None, not finite, is not drawn.
    """
    keys = ("step", "log_z", "low", "high", "elbo", "ess")
    step, log_z, low, high, elbo, ess = np.array([[e[key] for e in history] for key in keys], dtype=float)
    figure, (ax, ess_ax) = new_figure(7.2, 5.8, 2, 1, sharex=True, height_ratios=[2.5, 1])
    marker = {"lw": 1.6, "marker": "o", "ms": 3.5 if len(step) <= 40 else 0}
    claimed = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(claimed, [low, high], np.nan)
    mark_truth(ax.axhline, true_log_z)
    ax.plot(step, log_z, color=style.BLUE, label="log Z estimate", **marker)
    if claimed.any():
        ax.fill_between(step, low, high, label="its 95 % interval", **style.BAND)
        alone = claimed & (np.convolve(claimed, [1, 1, 1])[1:-1] == 1)  # a band needs a neighbour, else it is a bar
        ax.vlines(step[alone], low[alone], high[alone], color=style.BLUE, alpha=0.2, lw=4)
    if not claimed.all():
        hollow = {"ls": "", "marker": "o", "ms": 6, "mfc": "w", "color": style.BLUE}
        ax.plot(step[~claimed], log_z[~claimed], label="no upper end: heavy-tailed weights", **hollow)
    ax.plot(step, elbo, color=style.ORANGE, label="ELBO", **marker)
    half, truth = len(step) // 2, np.array([true_log_z], dtype=float)
    # A few late bounds may be as far away as the early ones: the lowest quarter does not count.
    bounds = np.sort(elbo[half:])[(len(step) - half) // 4 :]
    recent = np.concatenate([log_z[half:], low[half:], high[half:], bounds, truth])
    late, whole = interval(not_too_deep(recent)), interval(np.concatenate([log_z, low, high, elbo, truth]))
    clipped = whole[1] - whole[0] > 2 * (late[1] - late[0])
    too_deep = recent[np.isfinite(recent)].min(initial=np.inf) < late[0]
    ax.set(ylim=late if clipped else whole, ylabel="nats")
    ess_ax.plot(step, 100 * ess, color=style.GREEN, **marker)
    ess_ax.set(ylim=(0, 110 * np.nanmax(ess, initial=0) or 1), xlabel="training step", ylabel="effective\nsamples (%)")
    left_out = "what is far below left out" if too_deep else "view clipped to the second half of the run"
    title = f"Training, {left_out}" if clipped else "Training"
    return finish(figure, ax, title)


def plot_log_weights(
    log_weight: Tensor, estimate: LogZEstimate | None = None, true_log_z: float | None = None
) -> Figure:
    """The log-weights, and where the estimate comes from; -inf, NaN and +inf count as weights of zero."""
    values = to_numpy(log_weight)
    finite = values[np.isfinite(values)]
    marks = [true_log_z] if estimate is None else [true_log_z, estimate.log_z, estimate.high]
    # The right tail decides the estimate and is always shown; the left one may be thousands of nats long.
    view = interval(not_too_deep(np.append(np.sort(finite)[len(finite) // 50 :], np.array(marks, dtype=float))))
    figure, (ax,) = new_figure(7.2, 4.4)
    hidden = ""
    if len(finite):
        draw_histogram(ax, values, view, np.isfinite(values).astype(float), label="samples", **style.FILLED)
        draw_histogram(ax, values, view, weights(log_weight), label="their part in the estimate of Z", **style.STEP)
    if estimate is not None:
        ax.axvline(estimate.log_z, color=style.BLUE, lw=1.8, label=f"log Z estimate = {estimate.log_z:.4g}")
        if np.isfinite(estimate.high):
            ax.axvspan(estimate.low, estimate.high, label="its 95 % interval", **style.BAND)
        hidden = " (left of the view)" if estimate.elbo < view[0] else ""
        ax.axvline(estimate.elbo, color=style.ORANGE, lw=1.8, label=f"ELBO = {estimate.elbo:.4g}{hidden}")
    mark_truth(ax.axvline, true_log_z)
    ax.set(xlim=view, xlabel="log importance weight (nats)", ylabel="probability density")
    zero, below = len(values) - len(finite), (finite < view[0]).sum()
    return finish(
        figure,
        ax,
        f"{len(values):,} log-weights: {zero:,} of weight zero, {below:,} left of the view",
        2 if hidden else 3,
    )


def plot_estimates(
    estimates: dict[str, LogZEstimate], bounds: dict[str, float], true_log_z: float | None = None
) -> Figure:
    """All that is known of log Z on one axis: estimates with their intervals, and bounds.

    Arguments:
        estimates: by name, the first at the top; an interval without upper end is an arrow.
        bounds: by name, lower or upper; those a thousand nats away are numbers.
        true_log_z: if it is known.
    """
    figure, (ax,) = new_figure(7.2, 1.4 + 0.42 * (len(estimates) + len(bounds)))
    ends = [value for e in estimates.values() for value in (e.log_z, e.low, e.high)]
    first = next(iter(estimates.values())).log_z
    near = {name: value for name, value in bounds.items() if abs(value - first) < DEEP}
    far = {name: value for name, value in bounds.items() if name not in near}
    view = interval(np.array([*ends, *near.values(), true_log_z], dtype=float), padding=0.1)
    mark_truth(ax.axvline, true_log_z)
    for row, estimate in enumerate(estimates.values()):
        ax.plot(estimate.log_z, row, "o", color=style.BLUE, ms=7, label="" if row else "estimate and 95 % interval")
        end = estimate.high if np.isfinite(estimate.high) else view[1]
        line = {"color": style.BLUE, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        arrow = "|-|,widthA=0.25,widthB=0.25" if np.isfinite(estimate.high) else "->"
        ax.annotate("", (end, row), (estimate.low, row), arrowprops={"arrowstyle": arrow, **line})
    for row, value in enumerate(near.values(), len(estimates)):
        ax.plot(value, row, "D", color=style.ORANGE, ms=6, label="" if row > len(estimates) else "bound")
    look = {"color": style.ORANGE, "ha": "center", "va": "center", "transform": ax.get_yaxis_transform()}
    for row, value in enumerate(far.values(), len(estimates) + len(near)):
        ax.text(0.5, row, f"{value:.3g}, out of view", **look)
    names = [*estimates, *near, *far]
    ax.set(xlim=view, ylim=(len(names) - 0.5, -0.5), xlabel="log Z (nats)")
    ax.set_yticks(range(len(names)), names)
    return finish(figure, ax, "What is known of log Z")
