"""What all figures share: axes, and numbers as arrays."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.errors import warn_of
from diffsampler.report import style

DEEP = 1000.0  # nats


def draw_histogram(ax: Axes, values: np.ndarray, view: tuple[float, float], weight: np.ndarray, **look: Any) -> float:
    """The density of all values, those out of view included; returns the highest."""
    bins = np.linspace(*view, 52)
    density = np.histogram(values, bins, weights=weight)[0] / np.diff(bins) / weight.sum()
    ax.stairs(density, bins, **look)
    return float(density.max())


def mark_truth(draw: Callable[..., Any], log_z: float | None) -> None:
    """By a line, if it is known."""
    if log_z is not None:
        draw(log_z, label=f"true log Z = {log_z:.4g}", **style.TRUTH)


def not_too_deep(values: np.ndarray) -> np.ndarray:
    """The finite values but for those so far below the highest that a view with them would show nothing else."""
    values = values[np.isfinite(values)]
    return values[values >= values.max(initial=-np.inf) - DEEP]


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


def save_all(folder: str | Path, drawn: Mapping[str, Callable[[], Figure]]) -> list[Path]:
    """Draw figures by name, write them as PNG files, and return their paths; one that fails is warned of."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in drawn.items():
        file = Path(folder) / f"{name}.png"
        try:
            draw().savefig(file, dpi=120)
        except Exception as error:  # a figure is not worth a run
            warn_of(f"{file.name} could not be drawn", error)
        else:
            paths.append(file)
    return paths


def finish(figure: Figure, ax: Axes, title: str, columns: int = 3) -> Figure:
    ax.set_title(title, fontsize=11, loc="left")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure
