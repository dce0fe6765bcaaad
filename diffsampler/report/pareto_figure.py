"""Figures of trade-offs between objectives."""

from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.report import style
from diffsampler.report.axes import finish, new_figure, to_numpy

MAX_SHOWN = 300  # draws of one preference


def plot_pareto_front(preferences: Tensor, objectives: Tensor, is_on_front: Tensor, reference: Tensor) -> Figure:
    """Draws by their first preference, and those on the front, of each pair of the first three objectives.

    Arguments:
        preferences: with shape (P, K).
        objectives: log rewards, with shape (P, n, K).
        is_on_front: with shape (P, n).
        reference: with shape (K).
    """
    pairs = list(combinations(range(min(3, objectives.shape[-1])), 2))
    figure, axes = new_figure(5.2 if len(pairs) == 1 else 11.4, 4.4, 1, len(pairs))
    all_draws, front = to_numpy(objectives), to_numpy(objectives[is_on_front])
    start, weight = to_numpy(reference), to_numpy(preferences)[:, 0]
    for ax, (first, second) in zip(axes, pairs, strict=True):
        shown = all_draws[:, :MAX_SHOWN]
        colour = np.repeat(weight, shown.shape[1])
        points = ax.scatter(
            shown[..., first].ravel(), shown[..., second].ravel(), c=colour, s=5, cmap="viridis", vmin=0, vmax=1, lw=0
        )
        points.set_rasterized(True)
        _draw_front(ax, front[:, [first, second]], is_line=len(start) == 2)
        _look_at(ax, all_draws[..., [first, second]].reshape(-1, 2), front[:, [first, second]])
        if ax.get_xlim()[0] <= start[first] and ax.get_ylim()[0] <= start[second]:
            ax.plot(start[first], start[second], "x", color=style.BLACK, ms=7, label="reference", clip_on=False)
        ax.set(xlabel=f"log reward {first + 1}", ylabel=f"log reward {second + 1}")
    figure.colorbar(points, ax=axes, label="preference 1", pad=0.01)
    return finish(figure, axes[0], "Draws for all preferences, and the best of them")


def _draw_front(ax: Axes, front: np.ndarray, is_line: bool) -> None:
    if is_line:
        front = front[front[:, 0].argsort()]
        ax.step(*front.T, where="pre", color=style.ORANGE, lw=1.6, label="not dominated")
    else:
        ax.scatter(*front.T, s=7, color=style.ORANGE, lw=0, label="not dominated", rasterized=True)


def _look_at(ax: Axes, draws: np.ndarray, front: np.ndarray) -> None:
    """All of the front, and most draws: tails of log rewards are long. What lies below is out of view."""
    low = np.minimum(np.quantile(draws, 0.1, axis=0), front.min(0))
    high = front.max(0)
    margin = 0.06 * np.maximum(high - low, 1e-9)
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
