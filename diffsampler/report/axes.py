"""What all figures share: colours, axes, and numbers as arrays."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#767676", "#222222"
FILLED, STEP = {"fill": True, "color": ORANGE, "alpha": 0.4}, {"color": BLUE, "lw": 1.4}
TRUTH, BAND = {"color": BLACK, "lw": 1.3, "ls": "--"}, {"color": BLUE, "alpha": 0.2, "lw": 0}
EXACT = {"color": BLACK, "lw": 1.2, "label": "exact samples"}


def draw_histogram(ax: Axes, values: np.ndarray, view: tuple[float, float], weight: np.ndarray, **style: Any) -> float:
    """The density of all values, those out of view included; returns the highest."""
    bins = np.linspace(*view, 52)
    density = np.histogram(values, bins, weights=weight)[0] / np.diff(bins) / weight.sum()
    ax.stairs(density, bins, **style)
    return float(density.max())


def weights(log_weight: Tensor) -> np.ndarray:
    """Weights that sum to one, with shape (n), or zeros where none is positive and finite."""
    log_weight = log_weight.double().nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    return to_numpy(log_weight.softmax(0).nan_to_num(0.0))


def interval(values: np.ndarray, tail: float = 0.0, padding: float = 0.06) -> tuple[float, float]:
    """The ends of an axis that shows the finite values, but for a share `tail` at either end."""
    values = values[np.isfinite(values)]
    low, high = map(float, np.quantile(values, [tail, 1 - tail])) if len(values) else (0.0, 0.0)
    margin = padding * (high - low) if high - low > 1e-9 * max(1.0, abs(high)) else 0.5  # equal values need a width too
    return low - margin, high + margin


def to_numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list]:
    figure = FigureCanvasAgg(Figure(figsize=(width, height), layout="constrained")).figure
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def finish(figure: Figure, ax: Axes, title: str, columns: int = 3) -> Figure:
    ax.set_title(title, fontsize=11, loc="left")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure
