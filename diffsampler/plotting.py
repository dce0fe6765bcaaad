"""Figures: samples against the density, marginals, training, log-weights, and balance along trajectories.

Each function returns a matplotlib `Figure` that belongs to no window and no global state; `save_figures` writes them
all. Targets are evaluated directly, not through the sampler's counter: what a figure costs is not part of a run.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.ndimage import gaussian_filter
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.estimators import LogZEstimate
from diffsampler.sampler import Sampler
from diffsampler.target import CountedTarget, Target
from diffsampler.trajectory import Trajectory

__all__ = ["plot_balance", "plot_log_weights", "plot_marginals", "plot_samples", "plot_training", "save_figures"]

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#767676", "#222222"
CONTOUR_MAP = "Greys"
NATS_BELOW_MAXIMUM = np.array([12.5, 8.0, 4.5, 2.0, 0.5])
ENCLOSED_MASS = np.array([0.99, 0.95, 0.8, 0.5])
GRID_SIZE = 150
CHUNK = 10_000
MAX_POINTS = 4000
NUM_EXACT = 20_000
NUM_TRAJECTORIES = 256


def plot_samples(target: Target, x: Tensor, coordinates: tuple[int, int] | None = None) -> Figure:
    """Samples over contours of the density, in a pair of coordinates; the title says of which density.

    For D = 2 that is the density itself; above, the histogram of exact samples where the target has them, and
    otherwise the slice of the density through the best sample. For D = 1 it is a histogram against the density.

    Arguments:
        target: the density.
        x: samples, with shape (n, D).
        coordinates: the pair to show; by default the target's `plot_coordinates`. Ignored for D = 1.

    Raises:
        InputError: if x is not samples of the target, or `coordinates` not a pair of its coordinates.
    """
    _check_samples(target, x)
    if target.dim == 1:
        return _plot_density_1d(target, x)
    first, second = target.plot_coordinates if coordinates is None else coordinates
    if first == second or not all(0 <= c < target.dim for c in (first, second)):
        raise InputError(f"coordinates must be two different numbers below {target.dim}, got {(first, second)}.")
    samples = _to_numpy(x)[:, [first, second]]
    exact = _exact_samples(target, x)[:, [first, second]] if target.dim > 2 and target.has_exact_samples else None
    views = [_view(target, *(part[:, c] for part in (samples, exact) if part is not None)) for c in (0, 1)]

    figure, (ax,) = _new_figure(6.0, 5.8)
    if exact is not None:
        _draw_histogram_contours(ax, exact, views)
        title = "exact samples (grey: regions with 50, 80, 95, 99 % of them)"
    else:
        drawn = _draw_density_contours(ax, target, x, (first, second), views)
        title = "density" if target.dim == 2 else "density sliced through the best sample"
        title += " (grey: 0.5, 2, 4.5, 8, 12.5 nats below its maximum)" if drawn else ": zero or undefined in this view"
    _set_title(ax, f"Samples over {title}" if exact is not None else f"Samples over the {title}")
    shown = samples[:MAX_POINTS]
    inside = np.all([(low <= shown[:, c]) & (shown[:, c] <= high) for c, (low, high) in enumerate(views)], axis=0)
    label = f"{len(shown):,} samples" if len(shown) == len(samples) else f"{len(shown):,} of {len(samples):,} samples"
    if not inside.all():
        label += f", {(~inside).sum():,} out of view"
    ax.scatter(*shown[inside].T, s=7, color=ORANGE, alpha=0.45, linewidths=0, label=label, rasterized=True)
    ax.set(xlim=views[0], ylim=views[1], xlabel=f"coordinate {first}", ylabel=f"coordinate {second}")
    if target.plot_range is not None:
        ax.set_aspect("equal")
    figure.legend(loc="outside lower center", frameon=False, fontsize=9, markerscale=2)
    return figure


def plot_marginals(target: Target, x: Tensor, log_weight: Tensor | None = None, max_coordinates: int = 8) -> Figure:
    """The distribution of each coordinate: samples, weighted samples, and exact ones where the target has them.

    Arguments:
        target: the density.
        x: samples, with shape (n, D).
        log_weight: log importance weights, with shape (n).
        max_coordinates: show the first so many coordinates.
    """
    _check_samples(target, x)
    samples = _to_numpy(x)
    exact = _exact_samples(target, x) if target.has_exact_samples else None
    weight = None if log_weight is None else _normalised_weights(log_weight)
    count = min(target.dim, max_coordinates)
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure, axes = _new_figure(max(2.6 * columns, 5.0), 2.2 * rows + 1.0, rows, columns)
    for ax in axes[count:]:
        ax.remove()
    for c, ax in enumerate(axes[:count]):
        view = _view(target, samples[:, c], *([] if exact is None else [exact[:, c]]))
        bins = np.linspace(*view, 51)
        ax.stairs(
            _shares(samples[:, c], bins, per_width=True), bins, fill=True, color=ORANGE, alpha=0.4, label="samples"
        )
        if exact is not None:
            ax.stairs(_shares(exact[:, c], bins, per_width=True), bins, color=BLACK, lw=1.2, label="exact samples")
        if weight is not None:
            ess = 1 / (len(weight) * np.square(weight).sum())
            shares = _shares(samples[:, c], bins, weight, per_width=True)
            ax.stairs(shares, bins, color=BLUE, lw=1.4, label=f"weighted samples (ESS {ess:.1%})")
        ax.set(xlim=view, xlabel=f"coordinate {c}", yticks=[])
        ax.set_ylim(bottom=0)
        ax.spines["left"].set_visible(False)
    figure.supylabel("probability density", fontsize=10)
    shown = "all coordinates" if count == target.dim else f"the first {count} of {target.dim} coordinates"
    figure.suptitle(f"Marginals of {shown}", fontsize=11, x=0.02, ha="left")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def plot_training(history: Sequence[dict[str, Any]], true_log_z: float | None = None) -> Figure:
    """ELBO, log Z with its interval, and ESS over training.

    The view fits the second half of the run: early bounds can be millions of nats away.

    Arguments:
        history: entries as `fit` returns them; None stands for what was not finite, and is left out.
        true_log_z: the truth, where it is known.
    """
    step, log_z, low, high, elbo, ess = (
        np.array([math.nan if entry[key] is None else entry[key] for entry in history], dtype=float)
        for key in ("step", "log_z", "low", "high", "elbo", "ess")
    )
    figure, (ax, ess_ax) = _new_figure(7.2, 5.6, 2, 1, sharex=True, height_ratios=[2.5, 1])
    marker = {"marker": "o", "ms": 3.5} if len(step) <= 40 else {}
    if true_log_z is not None:
        ax.axhline(true_log_z, color=BLACK, lw=1.2, ls="--", label=f"true log Z = {true_log_z:.4g}")
    claimed = np.isfinite(low) & np.isfinite(high)
    ax.fill_between(step, low, high, where=claimed, color=BLUE, alpha=0.2, lw=0, label="its 95 % interval")
    ax.plot(step, log_z, color=BLUE, lw=1.6, label="log Z estimate", **marker)
    refused = np.isfinite(log_z) & ~claimed
    if refused.any():
        label = "no two-sided interval (heavy-tailed weights)"
        ax.plot(step[refused], log_z[refused], "o", ms=6, mfc="white", mec=BLUE, label=label)
    ax.plot(step, elbo, color=ORANGE, lw=1.6, label="ELBO", **marker)

    half = len(step) // 2
    late_elbo = elbo[half:][np.isfinite(elbo[half:])]
    floor = [np.quantile(late_elbo, 0.1)] if len(late_elbo) else []
    truth = [] if true_log_z is None else [true_log_z]
    view = _padded(
        np.concatenate([log_z[half:], low[half:], high[half:], late_elbo[late_elbo >= min(floor, default=0)], truth])
    )
    ax.set(ylim=view, ylabel="nats")
    everything = np.concatenate([log_z, elbo])
    clipped = int(((everything < view[0]) | (everything > view[1])).sum())
    note = f"; {clipped} points out of view, which fits the second half of the run" if clipped else ""
    _set_title(ax, f"Training{note}")
    ax.legend(frameon=False, fontsize=9, loc="best")

    ess_ax.plot(step, ess, color=GREEN, lw=1.6, **marker)
    ess_ax.set_ylim(bottom=0)
    ess_ax.set(xlabel="training step", ylabel="effective sample size")
    ess_ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ess_ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    return figure


def plot_log_weights(
    log_weight: Tensor, estimate: LogZEstimate | None = None, true_log_z: float | None = None
) -> Figure:
    """The log importance weights: how many samples have them, and how much of the estimate comes from them.

    Arguments:
        log_weight: with shape (n); -inf, NaN and +inf count as weights of zero.
        estimate: marks its log Z with its interval, and its ELBO.
        true_log_z: the truth, where it is known.
    """
    values, n = _to_numpy(log_weight), log_weight.numel()
    finite = values[np.isfinite(values)]
    figure, (ax,) = _new_figure(7.2, 4.2)
    title = f"{n:,} log-weights, {n - len(finite):,} of weight zero"
    marks = [] if true_log_z is None else [true_log_z]
    if estimate is not None:
        marks += [estimate.log_z, *(end for end in (estimate.low, estimate.high) if math.isfinite(end))]
    # The right tail decides the estimate and is always shown; the left one may be thousands of nats long.
    view = _padded(np.array([*finite[finite >= np.quantile(finite, 0.02)], *marks] if len(finite) else marks))
    if estimate is not None and math.isfinite(estimate.elbo) and estimate.elbo > 2 * view[0] - view[1]:
        view = (min(view[0], estimate.elbo - 0.02 * (view[1] - view[0])), view[1])
    bins = np.linspace(*view, 61)
    if len(finite):
        below = int((finite < view[0]).sum())
        title += f", {below:,} left of the view" if below else ""
        ax.stairs(_shares(values, bins), bins, fill=True, color=ORANGE, alpha=0.4, label="share of samples")
        shares = _shares(values, bins, _normalised_weights(log_weight))
        ax.stairs(shares, bins, color=BLUE, lw=1.4, label="share of the estimate of Z")
    if estimate is not None:
        ax.axvline(estimate.log_z, color=BLUE, lw=1.8, label=f"log Z estimate = {estimate.log_z:.4g}")
        if math.isfinite(estimate.high):
            ax.axvspan(estimate.low, estimate.high, color=BLUE, alpha=0.2, lw=0, label="its 95 % interval")
        if math.isfinite(estimate.elbo):
            hidden = ", left of the view" if estimate.elbo < view[0] else ""
            ax.axvline(estimate.elbo, color=ORANGE, lw=1.8, label=f"ELBO = {estimate.elbo:.4g}{hidden}")
    if true_log_z is not None:
        ax.axvline(true_log_z, color=BLACK, lw=1.4, ls="--", label=f"true log Z = {true_log_z:.4g}")
    _set_title(ax, title)
    ax.set(xlim=view, xlabel="log importance weight (nats)", ylabel="share in each bin")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def plot_balance(trajectory: Trajectory, times: Tensor) -> Figure:
    """How far trajectories are from balance: u_k minus its mean over k, zero everywhere for a perfect sampler.

    Without a flow u is known at the two ends only, and the figure is a histogram of u_T - u_0.

    Arguments:
        trajectory: densities of B trajectories.
        times: the grid, with shape (T + 1).
    """
    figure, (ax,) = _new_figure(7.2, 4.2)
    batch = len(trajectory.log_prob)
    num_zero = int((~trajectory.log_prob.isfinite()).sum())
    note = f"; {num_zero:,} end at density zero (set to 10 nats below log Z)" if num_zero else ""
    if trajectory.log_flow is None:
        start, end = trajectory.balance_ends
        residual = _to_numpy(end - start)
        view = _padded(np.quantile(residual[np.isfinite(residual)], [0.005, 0.995]))
        bins = np.linspace(*view, 41)
        ax.stairs(_shares(residual, bins), bins, fill=True, color=BLUE, alpha=0.45)
        ax.axvline(0, color=BLACK, lw=1)
        ax.set(xlim=view, xlabel="imbalance of the ends: log-weight minus the learned log Z (nats)")
        ax.set_ylabel(f"share of {batch:,} trajectories")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        _set_title(ax, f"Balance of the two ends{note}")
        return figure
    t, u = _to_numpy(times), _to_numpy(trajectory.u - trajectory.u.mean(0))
    low, lower, median, upper, high = np.nanquantile(u, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
    ax.fill_between(t, low, high, color=BLUE, alpha=0.18, lw=0, label="90 % of trajectories")
    ax.fill_between(t, lower, upper, color=BLUE, alpha=0.35, lw=0, label="50 % of trajectories")
    ax.plot(t, median, color=BLUE, lw=1.6, label="median")
    ax.axhline(0, color=BLACK, lw=1)
    ax.set(xlim=(t[0], t[-1]), xlabel="time t", ylabel="imbalance (nats)")
    _set_title(ax, f"Balance along {batch:,} trajectories of {trajectory.num_steps} steps{note}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def save_figures(
    folder: str | Path,
    sampler: Sampler,
    x: Tensor,
    log_weight: Tensor,
    estimate: LogZEstimate,
    history: Sequence[dict[str, Any]],
    seed: int = 0,
) -> list[Path]:
    """Write all figures as PNG files, and return their paths.

    Arguments:
        folder: where to; made if it does not exist.
        sampler: the trained sampler.
        x: its samples, in the target's coordinates, with shape (n, D).
        log_weight: their log importance weights, with shape (n).
        estimate: of log Z.
        history: of training; empty where there was none.
        seed: of the trajectories of the balance figure.
    """
    target = sampler.target
    figures = {"samples": plot_samples(target, x), "marginals": plot_marginals(target, x, log_weight)}
    if history:
        figures["training"] = plot_training(history, target.log_z)
    figures["log_weights"] = plot_log_weights(log_weight, estimate, target.log_z)
    figures["balance"] = plot_balance(*_fresh_trajectory(sampler, seed))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
    return [folder / f"{name}.png" for name in figures]


@torch.no_grad()
def _fresh_trajectory(sampler: Sampler, seed: int) -> tuple[Trajectory, Tensor]:
    counter = sampler.counter
    # A figure must not add to the cost that is reported for training and estimate.
    sampler.counter = CountedTarget(counter.target)
    try:
        path = sampler.rollout(NUM_TRAJECTORIES, torch.Generator(sampler.device).manual_seed(seed))
        trajectory = sampler.evaluate(path)
    finally:
        sampler.counter = counter
    parameters = [] if sampler.flow is None else list(sampler.flow.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        # Losses without a flow freeze it: its balance would be that of an untrained network.
        trajectory = replace(trajectory, log_flow=None)
    return trajectory, path.times


def _plot_density_1d(target: Target, x: Tensor) -> Figure:
    samples = _to_numpy(x)[:, 0]
    view = _view(target, samples)
    grid = np.linspace(*view, 1000)
    log_prob = _log_prob(target, torch.as_tensor(grid[:, None]), x)
    label = "density"
    if target.log_z is not None:
        log_prob = log_prob - target.log_z
    elif np.isfinite(log_prob).any():
        log_prob = log_prob - np.max(log_prob)
        log_prob = log_prob - np.log(np.exp(log_prob).sum() * (grid[1] - grid[0]))
        label = "density, normalised over this view"
    figure, (ax,) = _new_figure(6.0, 4.2)
    bins = np.linspace(*view, 61)
    share = f"{len(samples):,} samples"
    ax.stairs(_shares(samples, bins, per_width=True), bins, fill=True, color=ORANGE, alpha=0.4, label=share)
    ax.plot(grid, np.exp(log_prob), color=BLACK, lw=1.4, label=label)
    ax.set(xlim=view, xlabel="coordinate 0", ylabel="probability density")
    ax.set_ylim(bottom=0)
    _set_title(ax, "Samples against the density")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw_density_contours(
    ax: Axes, target: Target, x: Tensor, coordinates: tuple[int, int], views: list[tuple[float, float]]
) -> bool:
    """Contours of the density in the plane of `coordinates`; False where it is zero or undefined in the whole view."""
    across, up = (np.linspace(*view, GRID_SIZE) for view in views)
    plane = torch.as_tensor(np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2))
    points = plane.new_zeros(len(plane), target.dim)
    if target.dim > 2:
        points += x[int(_log_prob(target, x, x).argmax())].to(points)
    points[:, list(coordinates)] = plane
    log_prob = _log_prob(target, points, x).reshape(GRID_SIZE, GRID_SIZE)
    if not np.isfinite(log_prob).any():
        return False
    # With a floor in place of -inf the contours follow the edge of the support instead of ending there.
    log_prob = np.maximum(log_prob - log_prob.max(), -2 * NATS_BELOW_MAXIMUM[0])
    _draw_contours(ax, across, up, log_prob, -NATS_BELOW_MAXIMUM)
    return True


def _draw_histogram_contours(ax: Axes, exact: np.ndarray, views: list[tuple[float, float]]) -> None:
    counts, across, up = np.histogram2d(*exact.T, bins=80, range=views)
    density = gaussian_filter(counts, 1.0).T
    ordered = np.sort(density.ravel())[::-1]
    enclosed = ordered.cumsum() / len(exact)
    levels = [ordered[np.searchsorted(enclosed, mass)] for mass in ENCLOSED_MASS if mass < enclosed[-1]]
    if levels:
        _draw_contours(ax, (across[1:] + across[:-1]) / 2, (up[1:] + up[:-1]) / 2, density, np.array(levels))


def _draw_contours(ax: Axes, across: np.ndarray, up: np.ndarray, height: np.ndarray, levels: np.ndarray) -> None:
    levels = np.unique(levels)
    shades = colormaps[CONTOUR_MAP](np.linspace(0.12, 0.5, len(levels)))
    ax.contourf(across, up, height, levels=[*levels, np.inf], colors=shades)
    ax.contour(across, up, height, levels=levels, colors=GREY, linewidths=0.6, linestyles="solid")


@torch.no_grad()
def _log_prob(target: Target, points: Tensor, like: Tensor) -> np.ndarray:
    """log R of points with shape (n, D), with the dtype of `like`; NaN and +inf become -inf."""
    parts = [target.log_prob(part.to(_device(target, like), like.dtype)) for part in points.split(CHUNK)]
    log_prob = _to_numpy(torch.cat(parts))
    return np.where(np.isnan(log_prob) | np.isposinf(log_prob), -np.inf, log_prob)


def _exact_samples(target: Target, like: Tensor) -> np.ndarray:
    return _to_numpy(target.sample(NUM_EXACT, torch.Generator(_device(target, like)).manual_seed(0)))


def _device(target: Target, like: Tensor) -> torch.device:
    return next(target.buffers(), like).device


def _normalised_weights(log_weight: Tensor) -> np.ndarray | None:
    """Weights that sum to one, with shape (n); None where no weight is positive and finite."""
    values = _to_numpy(log_weight)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    weight = np.where(finite, np.exp(np.where(finite, values - values[finite].max(), 0)), 0)
    return weight / weight.sum()


def _shares(
    values: np.ndarray, bins: np.ndarray, weight: np.ndarray | None = None, per_width: bool = False
) -> np.ndarray:
    """Each bin's share of all values, also of those in no bin, or its density."""
    weight = np.full(len(values), 1 / len(values)) if weight is None else weight
    # numpy warns of NaN in a histogram, and they are in no bin anyway.
    finite = np.isfinite(values)
    shares, _ = np.histogram(values[finite], bins, weights=weight[finite])
    return shares / np.diff(bins) if per_width else shares


def _view(target: Target, *values: np.ndarray) -> tuple[float, float]:
    """The range of an axis: the target's, or where nearly all of the values are."""
    if target.plot_range is not None:
        return target.plot_range
    finite = [part[np.isfinite(part)] for part in values]
    return _padded(np.concatenate([np.quantile(part, [0.005, 0.995]) for part in finite if len(part)] or [[]]), 0.15)


def _padded(values: np.ndarray, padding: float = 0.06) -> tuple[float, float]:
    values = values[np.isfinite(values)] if len(values) else np.zeros(1)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    margin = padding * (high - low)
    # Equal values still need a width, one that their float can resolve.
    margin = margin if margin > 1e-9 * max(1.0, abs(low), abs(high)) else 0.5 + 1e-3 * abs(low)
    return low - margin, high + margin


def _check_samples(target: Target, x: Tensor) -> None:
    if x.dim() != 2 or x.shape[1] != target.dim or len(x) == 0:
        raise InputError(f"x must be samples with shape (n, {target.dim}), n at least 1, got {tuple(x.shape)}.")


def _to_numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(GREY)
        ax.tick_params(color=GREY, labelsize=9)
        ax.xaxis.label.set_size(10)
        ax.yaxis.label.set_size(10)
    return figure, axes


def _set_title(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=10, loc="left", wrap=True)
