"""A figure of models compared by their evidence."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from diffsampler.log_z.difference import difference
from diffsampler.report import style
from diffsampler.report.axes import finish, interval, new_figure

Figures = Mapping[str, tuple[float, float, float]]


def plot_comparison(log_z: Figures, probability: Figures) -> Figure:
    """Log Bayes factors to the best model, and posterior probabilities, with their 95 % intervals.

    Arguments:
        log_z: of each model, with the ends of its interval, by name, the best first.
        probability: likewise.
    """
    best = next(iter(log_z))
    factors = [difference(value, log_z[best]) for value in log_z.values()]
    figure, (left, right) = new_figure(8.6, 1.6 + 0.42 * len(log_z), 1, 2, width_ratios=[1.6, 1])
    ends = np.array([[one.value, one.low, one.high] for one in factors[1:]], dtype=float)
    view = interval(np.append(ends.flatten(), 0.0), padding=0.1)
    rows = range(len(log_z))
    left.axvline(0.0, color=style.BLUE, lw=1.0)
    left.plot(0.0, 0, "o", color=style.BLUE, ms=7)
    for row, one in enumerate(factors[1:], 1):
        low, high = max(one.low, view[0]), min(one.high, view[1])
        left.plot([low, high], [row, row], color=style.BLUE, lw=1.8, marker="|", ms=9)
        left.plot(one.value, row, "o", color=style.BLUE, ms=7)
    left.set(xlim=view, xlabel="log Bayes factor to the best (nats)")
    left.set_yticks(rows, list(log_z))
    for row, name in enumerate(log_z):
        value, low, high = probability[name]
        right.barh(row, value, color=style.ORANGE, alpha=0.6, height=0.6)
        right.plot([low, high], [row, row], color=style.ORANGE, lw=1.8, marker="|", ms=9)
        right.text(1.02, row, f"{value:.3f}", va="center", transform=right.get_yaxis_transform())
    right.set(xlim=(0, 1), xlabel="posterior probability")
    right.set_yticks(rows, [""] * len(log_z))
    for ax in (left, right):
        ax.set_ylim(len(log_z) - 0.5, -0.5)
    return finish(figure, left, "Models by their evidence")
