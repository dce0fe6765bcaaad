"""Figures: samples against the density, marginals, training, log-weights, and balance along trajectories.

Each function returns a matplotlib `Figure` that belongs to no window and no global state; `save_figures` writes them
all. Targets are read directly, not through the sampler's counter: what a figure costs is not part of a run.
Samples x, with shape (n, D), live on the target's device; log-weights have shape (n).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from torch import Tensor

from diffsampler.density import CheckedTarget
from diffsampler.errors import InputError
from diffsampler.log_z import LogZEstimate
from diffsampler.observables import histograms_of
from diffsampler.paths import Trajectory, evaluate, rollout
from diffsampler.report import style
from diffsampler.report.axes import (
    draw_histogram,
    finish,
    interval,
    new_figure,
    not_too_deep,
    save_all,
    to_numpy,
    weights,
)
from diffsampler.report.log_z_figures import plot_estimates, plot_log_weights, plot_training
from diffsampler.sampler import Sampler
from diffsampler.spaces import Links, Particles
from diffsampler.target import Target, support_of

LEVELS = [-12.5, -8.0, -4.5, -2.0, -0.5]  # nats below the maximum: 5, 4, .. 1 sigma of a Gaussian
GRID_SIZE, CHUNK, MAX_POINTS, NUM_EXACT, NUM_TRAJECTORIES, MIN_EFFECTIVE = 150, 10_000, 4000, 20_000, 256, 100


def plot_samples(
    target: Target, x: Tensor, coordinates: tuple[int, int] | None = None, log_weight: Tensor | None = None
) -> Figure:
    """Samples over contours of the density, in a pair of coordinates; for D = 1 their histogram and the density.

    The contours are those of the density itself for D = 2; above, of the histogram of exact samples where the target
    has them, of the weighted samples where their effective number is at least 100, and otherwise of the density's
    slice through the best sample. The figure says which.
    """
    if target.dim == 1:
        return plot_marginals(target, x)
    pair = list(target.plot_coordinates if coordinates is None else coordinates)
    if len(set(pair)) != 2 or not all(0 <= c < target.dim for c in pair):
        raise InputError(f"coordinates must be two different numbers from 0 to {target.dim - 1}, got {tuple(pair)}.")
    samples = to_numpy(x)[:, pair]
    exact = _exact_samples(target, x)[:, pair] if target.dim > 2 else samples[:0]
    views = [_view(target, samples[:, k], exact[:, k]) for k in (0, 1)]
    weight = np.zeros(0) if log_weight is None else weights(log_weight)
    if len(exact):
        name, shading = "exact samples", "regions with 50, 80, 95 % of the exact samples"
        *grid, levels = _regions(exact, np.full(len(exact), 1 / len(exact)), views)
    elif target.dim > 2 and weight.any() and 1 / np.square(weight).sum() >= MIN_EFFECTIVE:
        name, shading = "weighted samples", "regions with 50, 80, 95 % of the weight"
        *grid, levels = _regions(samples, weight, views)
    else:
        name = "the density" if target.dim == 2 else "a slice of the density, through the best sample"
        shading = "density 0.5, 2, 4.5, 8, 12.5 nats below its maximum here"
        *grid, levels = _density_plane(target, x, pair, views)
    figure, (ax,) = new_figure(6.0, 6.0)
    if len(levels):
        ax.contourf(*grid, levels=[*levels, np.inf], colors=colormaps["Greys"](np.linspace(0.12, 0.5, len(levels))))
        ax.contour(*grid, levels=levels, colors=style.GREY, linewidths=0.6, linestyles="solid")
    ax.fill_between([], [], color="#bbbbbb", label=shading if len(levels) else "zero or undefined in this view")
    shown = samples[:MAX_POINTS]
    inside = np.all([(low <= shown[:, k]) & (shown[:, k] <= high) for k, (low, high) in enumerate(views)], axis=0)
    label = f"{len(shown):,} of {len(samples):,} samples" + (f", {(~inside).sum():,} out of view" * (not inside.all()))
    ax.scatter(*shown[inside].T, s=7, color=style.ORANGE, alpha=0.45, linewidths=0, label=label)
    ax.set(xlim=views[0], ylim=views[1], xlabel=f"coordinate {pair[0]}", ylabel=f"coordinate {pair[1]}")
    ax.set_aspect("auto" if target.plot_range is None else "equal")
    return finish(figure, ax, f"Samples over {name}", columns=1)


def plot_marginals(target: Target, x: Tensor, log_weight: Tensor | None = None, max_coordinates: int = 8) -> Figure:
    """The distribution of each coordinate: samples, weighted samples, and exact ones where the target has them."""
    samples, exact = to_numpy(x), _exact_samples(target, x)
    weight = np.zeros(len(samples)) if log_weight is None else weights(log_weight)
    count = min(target.dim, max_coordinates)
    rows = -(-count // 4)
    columns = -(-count // rows)
    figure, axes = new_figure(max(2.6 * columns, 6.0), 2.2 * rows + 1.0, rows, columns)
    for ax in axes[count:]:
        ax.remove()
    for c, ax in enumerate(axes[:count]):
        view = _view(target, samples[:, c], exact[:, c])
        top = draw_histogram(ax, samples[:, c], view, np.ones(len(samples)), label="samples", **style.FILLED)
        if len(exact):
            top = max(top, draw_histogram(ax, exact[:, c], view, np.ones(len(exact)), **style.EXACT))
        if weight.any():
            label = f"weighted samples (ESS {1 / np.square(weight).sum():,.1f})"
            # A few dominant weights make spikes that would flatten everything else.
            top = max(top, min(2 * top, draw_histogram(ax, samples[:, c], view, weight, label=label, **style.STEP)))
        if target.dim == 1:
            grid, density, label = _density_line(target, x, view)
            ax.plot(grid, density, color=style.GREEN, lw=1.6, label=label)
            top = max(top, density.max())
        ax.set(xlim=view, ylim=(0, 1.05 * top or 1), xlabel=f"coordinate {c}", yticks=[])
        ax.spines["left"].set_visible(False)
    figure.supylabel("probability density", fontsize=10)
    title = "Marginals" if count == target.dim else f"Marginals of the first {count} of {target.dim} coordinates"
    figure.suptitle("Samples and density" if target.dim == 1 else title, fontsize=11, x=0.02, ha="left")
    return finish(figure, axes[0], "", columns=2)


def plot_balance(trajectory: Trajectory, times: Tensor) -> Figure:
    """u_k minus its mean over k along trajectories, zero for a perfect sampler; times have shape (T + 1).

    Without a flow u is known at the two ends only: the figure is then a histogram of u_T - u_0.
    """
    figure, (ax,) = new_figure(7.2, 4.4)
    num_zero = int((~trajectory.log_prob.isfinite()).sum())
    note = f"{len(trajectory.log_prob)} trajectories" + f", {num_zero} of which end at density zero" * (num_zero > 0)
    if trajectory.log_flow is None:
        residual = to_numpy(trajectory.balance_ends[1] - trajectory.balance_ends[0])
        view = interval(not_too_deep(np.append(residual, 0.0)), tail=0.005)
        draw_histogram(ax, residual, view, np.ones(len(residual)), label="trajectories", **style.FILLED)
        note += f", {(residual < view[0]).sum()} left of the view" * bool((residual < view[0]).any())
        ax.axvline(0, color=style.BLACK, lw=1)
        ax.set(xlim=view, xlabel="log-weight minus log Z (nats)", ylabel="probability density")
        return finish(figure, ax, f"Balance of the two ends of {note}")
    t, u = to_numpy(times), to_numpy(trajectory.u - trajectory.u.mean(0))
    low, lower, median, upper, high = np.nanquantile(u, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
    ax.axhline(0, color=style.BLACK, lw=1)
    ax.fill_between(t, low, high, label="90 % of trajectories", **style.BAND)
    ax.fill_between(t, lower, upper, label="50 % of trajectories", **{**style.BAND, "alpha": 0.4})
    ax.plot(t, median, color=style.BLUE, lw=1.6, label="median")
    ax.set(xlim=(t[0], t[-1]), xlabel="time t", ylabel="imbalance (nats)")
    return finish(figure, ax, f"Balance along {note}")


def save_figures(
    folder: str | Path,
    sampler: Sampler,
    x: Tensor,
    log_weight: Tensor,
    estimate: LogZEstimate,
    history: Sequence[dict[str, Any]],
    seed: int = 0,
    coordinates: tuple[int, int] | None = None,
    reference: LogZEstimate | None = None,
    bounds: dict[str, float] | None = None,
    with_flow: bool = True,
    with_log_z: bool = True,
) -> list[Path]:
    """Write all figures as PNG files and return their paths; `seed` is of the trajectories in that of balance.

    Samples and marginals are left out where single coordinates tell nothing, as those of particles.

    `reference` and `bounds` stand beside the estimate in that of all estimates. What no loss has trained, `with_flow`
    and `with_log_z` leave out of that of balance.
    """
    target, dynamics = sampler.target, sampler.dynamics.uncounted()
    with torch.no_grad():
        path = rollout(dynamics, NUM_TRAJECTORIES, torch.Generator(sampler.device).manual_seed(seed))
        trajectory = evaluate(dynamics, path, with_flow)
    if not with_log_z:
        # The estimate stands in for what was never learned.
        trajectory = replace(trajectory, log_z=torch.full_like(trajectory.log_z, estimate.log_z))
    estimates = {"importance weights": estimate} | ({} if reference is None else {"reference": reference})
    drawn = {
        "samples": lambda: plot_samples(target, x, coordinates, log_weight),
        "marginals": lambda: plot_marginals(target, x, log_weight),
        "training": lambda: plot_training(history, target.log_z),
        "log_weights": lambda: plot_log_weights(log_weight, estimate, target.log_z),
        "estimates": lambda: plot_estimates(estimates, {"ELBO": estimate.elbo, **(bounds or {})}, target.log_z),
        "balance": lambda: plot_balance(trajectory, path.times),
    }
    if not history:
        del drawn["training"]
    # Of particles and gauge fields single coordinates tell nothing, of lattices all sites the same: histograms do.
    if isinstance(target.space, Particles | Links) and coordinates is None:
        del drawn["samples"]
    if histograms_of(target.space):
        del drawn["marginals"]
    return save_all(folder, drawn)


def _density_line(target: Target, x: Tensor, view: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, str]:
    grid, width = np.linspace(*view, 1000, retstep=True)
    log_prob = _log_prob(target, torch.as_tensor(grid[:, None]), x)
    if target.log_z is not None:
        return grid, np.exp(log_prob - target.log_z), "density"
    # The bound keeps a density of zero in the whole view from becoming 0 / 0.
    log_z = max(np.logaddexp.reduce(log_prob) + np.log(width), -1e300)
    return grid, np.exp(log_prob - log_z), "density, normalised over this view"


def _density_plane(target: Target, x: Tensor, pair: list[int], views: list[tuple[float, float]]) -> tuple:
    across, up = (np.linspace(*view, GRID_SIZE) for view in views)
    points = x[int(_log_prob(target, x, x).argmax())].repeat(GRID_SIZE**2, 1)
    points[:, pair] = torch.as_tensor(np.stack(np.meshgrid(across, up), -1).reshape(-1, 2)).to(points)
    log_prob = _log_prob(target, points, x).reshape(GRID_SIZE, GRID_SIZE)
    top = log_prob.max()
    # With a floor in place of -inf the contours follow the edge of the support instead of breaking off there.
    return across, up, np.maximum(log_prob - max(top, -1e300), 2 * LEVELS[0]), LEVELS if np.isfinite(top) else []


def _view(target: Target, samples: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """The target's own range, unless it leaves more than a fifth of the samples out: then it is made wider."""
    whole = interval(np.append(samples, exact), 0.005, 0.15)
    if target.plot_range is None:
        return whole
    low, high = target.plot_range
    if ((low <= samples) & (samples <= high)).mean() >= 0.8:
        return low, high
    return min(low, whole[0]), max(high, whole[1])


def _regions(points: np.ndarray, weight: np.ndarray, views: list[tuple[float, float]]) -> tuple:
    mass, *edges = np.histogram2d(*points.T, bins=80, range=views, weights=weight)
    density = gaussian_filter(mass, 1.6).T
    ordered = np.sort(density, axis=None)[::-1]
    enclosed = ordered.cumsum()
    levels = np.unique([ordered[np.searchsorted(enclosed, mass)] for mass in (0.95, 0.8, 0.5) if mass < enclosed[-1]])
    return *((edge[1:] + edge[:-1]) / 2 for edge in edges), density, levels


@torch.no_grad()
def _log_prob(target: Target, points: Tensor, like: Tensor) -> np.ndarray:
    """log R of points with shape (n, D), on the device of `like`; -inf for NaN and +inf, and outside of a support."""
    points, onto = points.to(like), support_of(target)
    inside = torch.ones_like(points[:, 0], dtype=torch.bool) if onto is None else onto.contains(points)
    density = CheckedTarget(target)
    log_prob = torch.full_like(points[:, 0], -torch.inf, dtype=torch.float64)
    log_prob[inside] = torch.cat([density.log_prob(part) for part in points[inside].split(CHUNK)])
    return to_numpy(log_prob.nan_to_num(-torch.inf, -torch.inf, -torch.inf))


def _exact_samples(target: Target, like: Tensor) -> np.ndarray:
    """Exact samples, with shape (n, D); n = 0 where the target has none."""
    generator = torch.Generator(like.device).manual_seed(0)
    return to_numpy(target.sample(NUM_EXACT, generator) if target.has_exact_samples else like[:0])
