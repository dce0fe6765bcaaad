"""A figure of a simulation-based calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from diffsampler.report import style
from diffsampler.report.axes import finish, interval, new_figure

MOST_NAMED = 6


def plot_calibration(
    ranks: Mapping[str, np.ndarray],
    band: tuple[np.ndarray, np.ndarray, np.ndarray],
    outside: Sequence[str],
    errors: Sequence[tuple[float, float, float]],
    is_exact: bool,
) -> Figure:
    """Distribution functions of ranks less the uniform one, in their band, and sorted errors of log evidences.

    Arguments:
        ranks: by quantity, each with shape (n).
        band: points, and where the distribution function lies there, each with shape (number of draws).
        outside: the quantities that leave it.
        errors: of each log evidence, with the ends of its 95 % interval.
        is_exact: whether these are exact.
    """
    figure, (left, right) = new_figure(9.6, 3.9, 1, 2)
    points, low, high = band
    left.fill_between(points, low - points, high - points, step="mid", label="99 % band for all", **style.BAND)
    for name, one in ranks.items():
        below = np.bincount(one, minlength=len(points) + 1).cumsum()[:-1] / len(one)
        look = {"color": style.ORANGE, "lw": 1.6} if name in outside else {"color": style.BLUE, "lw": 0.8, "alpha": 0.6}
        named = name if name in outside[:MOST_NAMED] else None
        left.plot(points, below - points, drawstyle="steps-mid", label=named, **look)
    left.axhline(0.0, color=style.GREY, lw=0.8)
    left.set(xlabel="rank of the truth, as a share", ylabel="distribution function less uniform", xlim=(0, 1))
    ends = np.array(sorted(errors), dtype=float)
    view = interval(ends.flatten(), tail=0.01, padding=0.1)
    for row, (value, least, most) in enumerate(ends):
        color = style.BLUE if least <= 0 <= most else style.ORANGE
        color = color if np.isfinite(most) else style.GREY  # no claim
        right.plot([row, row], [max(least, view[0]), min(most, view[1])], color=color, lw=1.0, alpha=0.7)
        right.plot(row, value, "o", color=color, ms=3)
    right.axhline(0.0, color=style.GREY, lw=0.8)
    compared = "exact" if is_exact else "that of the search"
    right.set(ylim=view, xlabel="data sets, by their error", ylabel=f"log evidence less {compared} (nats)")
    return finish(figure, left, f"Calibration over {len(errors)} data sets")
