"""Figures of observables: what is drawn, not only that something is."""

import json
import math
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from diffsampler import FunctionTarget, InputError
from diffsampler.cli import main
from diffsampler.observables import Angles, Histogram, Variance, estimate_observable, pair_distances
from diffsampler.report.observable_figures import (
    plot_angle_map,
    plot_energies,
    plot_histogram,
    plot_scalars,
    save_figures_of_target,
    save_observable_figures,
)
from diffsampler.spaces import Particles


@pytest.fixture(autouse=True)
def no_warnings():
    # matplotlib and numpy say by warnings that a range or a histogram is empty.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def steps(figure: Figure, label: str, ax: int = 0) -> np.ndarray:
    (found,) = [patch for patch in figure.axes[ax].patches if str(patch.get_label()).startswith(label)]
    return found.get_data().values


def test_energies_of_draws_weighted_draws_and_reference(generator: torch.Generator) -> None:
    energy = torch.rand(1000, generator=generator)
    log_weight = torch.where(energy < 0.5, 0.0, -math.inf)
    figure = plot_energies(energy, log_weight, energy[energy < 0.5])
    assert [label.split(" (")[0] for label in labels(figure)] == ["draws", "weighted draws", "reference"]
    # Weights that leave one half make its density twice as high, and the same as the reference's.
    assert steps(figure, "weighted draws").max() > 1.5 * steps(figure, "draws").max()
    np.testing.assert_allclose(steps(figure, "weighted draws"), steps(figure, "reference"), atol=1e-9)
    assert len(labels(plot_energies(energy, log_weight))) == 2
    # One draw of an overlap, without weight, does not stretch the axis.
    far = plot_energies(torch.cat([energy, torch.tensor([1e12])]), torch.cat([log_weight, torch.tensor([-900.0])]))
    assert far.axes[0].get_xlim()[1] < 1


def test_peaks_of_weighted_draws_are_within_the_axes_but_for_spikes(generator: torch.Generator) -> None:
    energy = torch.rand(20_000, generator=generator)
    for share, is_shown in ((0.35, True), (0.02, False)):  # peaks 1 / share times as high as the draws
        figure = plot_energies(energy, torch.where(energy < share, 0.0, -30.0), None)
        ax, peak = figure.axes[0], steps(figure, "weighted draws").max()
        assert (ax.get_ylim()[1] > peak) == is_shown
        assert any("weighted draws go up to" in text.get_text() for text in ax.texts) != is_shown
    # No wider a view than that of the reference, which is as narrow.
    figure = plot_energies(energy, torch.where(energy < 0.1, 0.0, -30.0), energy[energy < 0.1])
    assert figure.axes[0].get_ylim()[1] > steps(figure, "weighted draws").max()


def test_whole_numbers_are_bars_with_errors() -> None:
    charge = torch.tensor([-1.0, 0.0, 0.0, 1.0])
    figure = plot_scalars({"Q": charge}, torch.tensor([1.0, 1.0, 1.0, 3.0]).log(), {"Q": charge})
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    np.testing.assert_allclose(heights, [0.25, 0.5, 0.25])
    (shares, *_), *_ = [container.lines for container in figure.axes[0].containers if hasattr(container, "has_yerr")]
    np.testing.assert_allclose(shares.get_ydata(), [1 / 6, 2 / 6, 3 / 6])
    assert figure.axes[0].get_xlabel() == "Q" and "two standard errors" in "".join(labels(figure))


def test_scalars_have_a_panel_each(generator: torch.Generator) -> None:
    x = torch.randn(200, generator=generator)
    values = {f"f{k}": x + k for k in range(14)}
    found = {"f1": estimate_observable("f1", lambda x: x[:, 0], (x + 1)[:, None])}
    figure = plot_scalars(values, torch.zeros(200), estimates=found)
    assert len(figure.axes) == 12 and "12 of 14" in figure._suptitle.get_text()
    assert figure.axes[1].get_title(loc="right").startswith(f"mean {float(found['f1'].value):.4g}")
    with pytest.raises(InputError, match="needs an observable"):
        plot_scalars({}, torch.zeros(0))


def test_histograms_within_their_errors(generator: torch.Generator) -> None:
    x = torch.rand(500, 2, generator=generator)
    histogram = Histogram(lambda x: x, 0.0, 1.0, num_bins=4)
    found = estimate_observable("h", histogram, x)
    figure = plot_histogram(found, found, found, "distance")
    np.testing.assert_allclose(steps(figure, "weighted draws"), found.value)
    np.testing.assert_allclose(steps(figure, "two standard errors"), found.value + 2 * found.standard_error)
    assert labels(figure) == ["draws", "two standard errors", "weighted draws", "reference"]
    with pytest.raises(InputError, match="of one Histogram, in the same bins"):
        plot_histogram(found, estimate_observable("h", Histogram(lambda x: x, 0.0, 2.0, num_bins=4), x))
    with pytest.raises(InputError, match="of one Histogram"):
        plot_histogram(estimate_observable("x", lambda x: x, x))


def test_a_map_of_two_angles_is_their_free_energy() -> None:
    quarter = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [2 * math.pi - 1, -1.0]])
    figure = plot_angle_map(quarter, torch.tensor([1.0, 4.0, 0.0, 1.0]).log(), quarter, num_bins=2)
    weighted, reference = (ax.collections[0].get_array() for ax in figure.axes[:2])
    # Angles are wrapped: two of the weights, 1 and 1, are in the first bin; none is in two of the four.
    np.testing.assert_allclose(weighted.filled(np.nan), [[math.log(2), np.nan], [np.nan, 0.0]])
    np.testing.assert_allclose(reference.filled(np.nan), [[0.0, math.log(2)], [np.nan, math.log(2)]])
    assert figure.axes[0].get_xlabel() == "phi (rad)"


def test_files_by_kind(tmp_path: Path, generator: torch.Generator) -> None:
    x, log_weight = torch.randn(300, 4, generator=generator), torch.zeros(300)
    log_weight[0], x[0] = -math.inf, math.nan
    observables = {
        "energy": lambda x: x.square().sum(-1),
        "first": lambda x: x[:, 0],
        "two": lambda x: x[:, :2],
        "variance": Variance(lambda x: x[:, 0]),
        "distances": Histogram(partial(pair_distances, space=Particles(2, 2))),
        "torsions": Angles(lambda x: x[:, :2]),
        "torsion": Angles(lambda x: x[:, 0]),
    }
    paths = save_observable_figures(tmp_path, observables, x, log_weight, x[1:])
    assert {path.name for path in paths} == {"energies.png", "observables.png", "distances.png", "torsions.png"}
    assert all(path.stat().st_size > 5000 for path in paths)
    with pytest.warns(UserWarning, match="the figure of observable 'bad' could not be drawn: no licence"):
        assert save_observable_figures(tmp_path, {"bad": no_licence}, x, log_weight) == []


def no_licence(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no licence")


def test_a_space_brings_figures_and_r_d_does_not(tmp_path: Path, generator: torch.Generator) -> None:
    x = torch.randn(50, 6, generator=generator)
    particles = FunctionTarget(lambda x: -x.square().sum(-1), 6, mean_free=3)
    names = [path.name for path in save_figures_of_target(tmp_path, particles, {}, x, torch.zeros(50))]
    assert sorted(names) == ["energies.png", "pair_distances.png"]
    plain = FunctionTarget(lambda x: -x.square().sum(-1), 6)
    assert save_figures_of_target(tmp_path, plain, {}, x, torch.zeros(50)) == []


@pytest.mark.slow
def test_histograms_take_the_place_of_single_coordinates(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    warnings.simplefilter("default")  # of Lightning and of its command line
    small = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    small += ["--data.steps_per_epoch=2", "--data.batch_size=8", "--data.num_eval_samples=50", "--model.grid=4"]
    small += ["--data.num_test_samples=300"]
    shape = ["--model.target.shape=[3,3]"]
    for target, more, there, not_there in (
        ("DoubleWell4", [], {"pair_distances"}, {"samples", "marginals"}),
        ("DoubleWell4", ["--report.coordinates=[0,2]"], {"pair_distances", "samples"}, {"marginals"}),
        ("U1Gauge", shape, {"plaquettes"}, {"samples", "marginals"}),
        ("Phi4Hopping", shape, {"fields", "samples"}, {"marginals"}),
        ("XYModel", shape, {"neighbours", "samples"}, {"marginals"}),
    ):
        main(["fit", f"--model.target={target}", *small, *more])
        run = max(Path(f"runs/{target}").iterdir(), key=lambda folder: folder.name)
        written = {path.stem for path in run.glob("*.png")}
        assert written >= there | {"energies", "training"} and not written & not_there, target
        assert "wasserstein2" not in json.loads((run / "results.json").read_text())["diagnostics"]
