"""Figures of observables: energies, scalars, histograms with their errors, maps of two angles.

Draws x have shape (n, D), log-weights (n); `reference` are draws of the target that know nothing of the sampler, or of
its own search, equally weighted.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from diffsampler.errors import InputError, warn_of
from diffsampler.observables import (
    Angles,
    Histogram,
    Observable,
    ObservableEstimate,
    estimate_observable,
    histograms_of,
    observables_of,
)
from diffsampler.report import style
from diffsampler.report.axes import draw_histogram, finish, interval, new_figure, save_all, to_numpy, weights
from diffsampler.target import Target

MAX_PANELS, MAX_INTEGERS, RARE, NOTABLE = 12, 40, 1e-3, 0.01
SPIKE = 4.0  # times as high as draws and reference: what is higher is one of few weights
DRAWS_PER_BIN, BINS_OF_ANGLES, DEEPEST = 2, (12, 60), 10.0  # nats, for the last


def plot_scalar(ax: Axes, values: np.ndarray, weight: np.ndarray, reference: np.ndarray | None) -> None:
    """The distribution of one number a draw: bars where it is whole, such as a topological charge, else a histogram.

    Error bars of whole numbers are two standard errors of the weights.
    """
    kept = weight > 0
    shown = values[kept] if kept.any() else values
    everything = shown if reference is None else np.append(shown, reference)
    if (everything == np.round(everything)).all() and np.ptp(everything) < MAX_INTEGERS:
        _plot_whole(ax, values, weight, reference, everything)
        return
    # What few draws without weight do, far away, is not what the axis is for.
    typical = (
        values[kept][np.argsort(-weight[kept])][: max(20, int(1 / np.square(weight).sum()))] if kept.any() else shown
    )
    view = interval(typical if reference is None else np.append(typical, reference), 0.001, 0.15)
    heights = [draw_histogram(ax, values, view, np.ones(len(values)), label="draws", **style.FILLED)]
    of_weighted, notes = 0.0, []
    if kept.any():
        label = f"weighted draws (ESS {1 / np.square(weight).sum():,.0f})"
        of_weighted = draw_histogram(ax, values, view, weight, label=label, **style.STEP)
    out = ((values < view[0]) | (values > view[1])).mean()
    if out > NOTABLE:
        notes.append(f"{out:.0%} of draws out of view")
    if reference is not None:
        look = {**style.EXACT, "label": "reference"}
        heights.append(draw_histogram(ax, reference, view, np.ones(len(reference)), **look))
    # A few dominant weights make spikes that would flatten everything else.
    top = max(*heights, min(of_weighted, SPIKE * max(heights)))
    if of_weighted > top:
        notes.append(f"weighted draws go up to {of_weighted:.2g}")
    if notes:
        look = {"ha": "right", "va": "top", "fontsize": 8, "bbox": {"color": "white", "alpha": 0.8, "pad": 1}}
        ax.text(0.99, 0.99, "\n".join(notes), transform=ax.transAxes, **look)
    ax.set(xlim=view, ylim=(0, 1.08 * top or 1), ylabel="probability density")


def _plot_whole(
    ax: Axes, values: np.ndarray, weight: np.ndarray, reference: np.ndarray | None, everything: np.ndarray
) -> None:
    places = np.arange(everything.min(), everything.max() + 1)
    hits = values[:, None] == places
    ax.bar(places, hits.mean(0), width=0.8, label="draws", color=style.ORANGE, alpha=0.4)
    if weight.any():
        share = weight @ hits
        error = np.sqrt(np.square(weight) @ np.square(hits - share))
        label = f"weighted draws (ESS {1 / np.square(weight).sum():,.0f}), two standard errors"
        ax.errorbar(places, share, 2 * error, fmt="o", ms=4, capsize=3, color=style.BLUE, label=label)
    if reference is not None:
        share = (reference[:, None] == places).mean(0)
        ax.scatter(places, share, marker="_", s=260, color=style.BLACK, label="reference", zorder=3)
    often = places[(hits.mean(0) > RARE) | (weight @ hits > RARE)]
    low, high = (often.min(), often.max()) if len(often) else (places[0], places[-1])
    ax.set(xlim=(low - 0.7, high + 0.7), ylim=(0, None), ylabel="probability")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))


def plot_energies(energy: Tensor, log_weight: Tensor, reference: Tensor | None = None) -> Figure:
    """Energies -log R of draws, of weighted draws, and of a reference, each with shape (n)."""
    figure, (ax,) = new_figure(7.2, 4.4)
    plot_scalar(ax, to_numpy(energy), weights(log_weight), None if reference is None else to_numpy(reference))
    ax.set(xlabel="energy, -log R (nats)")
    return finish(figure, ax, "Energies")


def plot_scalars(
    values: Mapping[str, Tensor],
    log_weight: Tensor,
    reference: Mapping[str, Tensor] | None = None,
    estimates: Mapping[str, ObservableEstimate] | None = None,
) -> Figure:
    """The distributions of numbers of which every draw has one, a panel each, twelve at most.

    Arguments:
        values: by name, each with shape (n).
        log_weight: of the same draws.
        reference: values of a reference, by the same names.
        estimates: their means, which titles state.
    """
    if not values:
        raise InputError("plot_scalars needs an observable with one number a draw.")
    names = list(values)[:MAX_PANELS]
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure, axes = new_figure(max(3.6 * columns, 6.4), 3.0 * rows + 0.9, rows, columns)
    for ax in axes[len(names) :]:
        ax.remove()
    for ax, name in zip(axes, names, strict=False):
        other = None if reference is None or name not in reference else to_numpy(reference[name])
        plot_scalar(ax, to_numpy(values[name]), weights(log_weight), other)
        ax.set(xlabel=name)
        if estimates and name in estimates:
            found = estimates[name]
            ax.set_title(f"mean {float(found.value):.4g} ± {float(found.standard_error):.2g}", fontsize=9, loc="right")
    left_out = f", {len(names)} of {len(values)}" if len(names) < len(values) else ""
    figure.suptitle(f"Observables{left_out}", fontsize=11, x=0.02, ha="left")
    return _finish_all(figure, axes[: len(names)])


def plot_histogram(
    found: ObservableEstimate,
    reference: ObservableEstimate | None = None,
    plain: ObservableEstimate | None = None,
    label: str = "value",
) -> Figure:
    """The weighted mean of a histogram within two standard errors, beside those of a reference and of plain draws.

    Arguments:
        found: of weighted draws, by a `Histogram`.
        reference: of a reference, in the same bins.
        plain: of the draws without their weights, in the same bins.
        label: of the axis.

    Raises:
        InputError: if bins are unknown, or differ.
    """
    others = [one for one in (reference, plain) if one is not None]
    if found.edges is None or any(one.edges is None or not torch.equal(one.edges, found.edges) for one in others):
        raise InputError("plot_histogram needs estimates of one Histogram, in the same bins.")
    figure, (ax,) = new_figure(7.2, 4.4)
    edges = to_numpy(found.edges)
    if plain is not None:
        ax.stairs(to_numpy(plain.value), edges, label="draws", **style.FILLED)
    low, high = (to_numpy(found.value + sign * 2 * found.standard_error) for sign in (-1, 1))
    ax.stairs(high, edges, baseline=np.maximum(low, 0), fill=True, label="two standard errors", **style.BAND)
    ax.stairs(to_numpy(found.value), edges, label="weighted draws", **style.STEP)
    if reference is not None:
        ax.stairs(to_numpy(reference.value), edges, **{**style.EXACT, "label": "reference"})
    tallest = max(float(one.value.max()) for one in (found, *others))
    top = min(float(high.max()), 1.5 * tallest)
    ax.set(
        xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * max(top, tallest) or 1), xlabel=label, ylabel="probability density"
    )
    return finish(figure, ax, f"Histogram: {label}", columns=4)


def plot_angle_map(
    angles: Tensor,
    log_weight: Tensor,
    reference: Tensor | None = None,
    names: tuple[str, str] = ("phi", "psi"),
    num_bins: int | None = None,
) -> Figure:
    """The free energy -log p of two angles, in nats above its minimum: a Ramachandran map.

    Bins in which there are no draws stay white.

    Arguments:
        angles: in radians, with shape (n, 2).
        log_weight: of the same draws.
        reference: angles of a reference, with shape (m, 2).
        names: of the two angles.
        num_bins: along each of them; by default 12 to 60, by how many draws are effective.
    """
    panels = [("weighted draws", angles, weights(log_weight))]
    if reference is not None:
        panels.append(("reference", reference, np.full(len(reference), 1 / len(reference))))
    figure, axes = new_figure(5.2 * len(panels) + 0.8, 4.9, 1, len(panels), sharey=True)
    effective = [1 / np.square(weight).sum() if weight.any() else 0.0 for *_, weight in panels]
    if num_bins is None:
        num_bins = int(np.clip(np.sqrt(min(effective) / DRAWS_PER_BIN), *BINS_OF_ANGLES))
    edges = np.linspace(-np.pi, np.pi, num_bins + 1)
    for ax, count, (name, points, weight) in zip(axes, effective, panels, strict=True):
        wrapped = np.remainder(to_numpy(points) + np.pi, 2 * np.pi) - np.pi
        mass = np.histogram2d(*wrapped.T, bins=[edges, edges], weights=weight)[0]
        with np.errstate(divide="ignore"):
            free = np.where(mass > 0, np.log(mass.max() or 1.0) - np.log(mass), np.nan)
        image = ax.pcolormesh(edges, edges, free.T, cmap="viridis", vmin=0, vmax=DEEPEST, rasterized=True)
        ax.set_title(f"{name} ({count:,.0f} effective)", fontsize=10, loc="left")
        ax.set(xlabel=f"{names[0]} (rad)", aspect="equal", xlim=(-np.pi, np.pi), ylim=(-np.pi, np.pi))
        for set_ticks in (ax.set_xticks, ax.set_yticks):
            set_ticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["-π", "-π/2", "0", "π/2", "π"])
    axes[0].set_ylabel(f"{names[1]} (rad)")
    figure.colorbar(image, ax=axes, label="free energy -log p (nats)", extend="max", shrink=0.85)
    return figure


def save_observable_figures(
    folder: str | Path,
    observables: Mapping[str, Callable[[Tensor], Tensor]],
    x: Tensor,
    log_weight: Tensor,
    reference: Tensor | None = None,
    estimates: Mapping[str, ObservableEstimate] | None = None,
) -> list[Path]:
    """Write figures as PNG files and return their paths.

    `energies.png` where an observable is called energy, `observables.png` of all others with one number a draw, and one
    file each, by its name, of a `Histogram` and of a pair of `Angles`.
    """
    drawn, scalars, of_reference = {}, {}, {}
    used = log_weight.isfinite()
    x, log_weight = x[used], log_weight[used]
    for name, observable in observables.items():
        try:
            if isinstance(observable, Histogram):
                drawn[name] = _histogram(name, observable, x, log_weight, reference)
            elif isinstance(observable, Angles):
                drawn[name] = _map(observable, x, log_weight, reference)
            elif not isinstance(observable, Observable):
                values = observable(x.clone())
                if values.ndim == 1:
                    scalars[name] = values
                    if reference is not None:
                        of_reference[name] = observable(reference.clone())
        except Exception as error:
            warn_of(f"the figure of observable {name!r} could not be drawn", error)
    if "energy" in scalars:
        energies = scalars.pop("energy"), log_weight, of_reference.pop("energy", None)
        drawn["energies"] = lambda: plot_energies(*energies)
    if scalars:
        drawn["observables"] = lambda: plot_scalars(scalars, log_weight, of_reference, estimates)
    return save_all(folder, {name: draw for name, draw in drawn.items() if draw is not None})


def save_figures_of_target(
    folder: str | Path,
    target: Target,
    observables: Mapping[str, Callable[[Tensor], Tensor]],
    x: Tensor,
    log_weight: Tensor,
    reference: Tensor | None = None,
    estimates: Mapping[str, ObservableEstimate] | None = None,
) -> list[Path]:
    """The same, with energies and what its kind of space has, where a target declares a space or has observables."""
    if not observables and target.space is None:
        return []
    known = observables_of(target)
    more = {name: known[name] for name in ("energy", *histograms_of(target.space))}
    return save_observable_figures(folder, {**more, **observables}, x, log_weight, reference, estimates)


def _histogram(
    name: str, observable: Histogram, x: Tensor, log_weight: Tensor, reference: Tensor | None
) -> Callable[[], Figure]:
    fitted = observable.fitted_to(x, log_weight.double().softmax(0))
    found = estimate_observable(name, fitted, x, log_weight)
    other = None if reference is None else estimate_observable(name, fitted, reference)
    plain = estimate_observable(name, fitted, x)
    return lambda: plot_histogram(found, other, plain, fitted.label)


def _map(observable: Angles, x: Tensor, log_weight: Tensor, reference: Tensor | None) -> Callable[[], Figure] | None:
    angles = observable.angles(x)
    if angles.shape[1] != 2:
        return None
    other = None if reference is None else observable.angles(reference)
    return lambda: plot_angle_map(angles, log_weight, other, observable.names)


def _finish_all(figure: Figure, axes: list[Axes]) -> Figure:
    """One legend for all panels: the label of a look comes up once."""
    found: dict[str, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
