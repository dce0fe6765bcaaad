"""Figures: what is drawn, not only that something is."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target
from diffsampler.log_z import estimate_log_z
from diffsampler.networks import FourierMLP
from diffsampler.paths import evaluate, rollout
from diffsampler.report.figures import (
    plot_balance,
    plot_estimates,
    plot_log_weights,
    plot_marginals,
    plot_samples,
    plot_training,
    save_figures,
)
from targets import Funnel, Gaussian, GaussianMixture

NAMES = ["samples", "marginals", "training", "log_weights", "estimates", "balance"]


@pytest.fixture(autouse=True)
def no_warnings():
    # matplotlib and numpy say by warnings that a range, a level or a quantile is empty.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def half_gaussian(dim: int, log_z: float | None = None) -> FunctionTarget:
    """A Gaussian at 0.5 where x_0 > 0, zero elsewhere."""

    def log_prob(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] > 0, -0.5 * ((x - 0.5) ** 2).sum(-1), -math.inf)

    return FunctionTarget(log_prob, dim, log_z)


def draws(n: int, dim: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(3))


def entry(step: int, log_z: float = 1.0, **fields: float | None) -> dict:
    return {"step": step, "log_z": log_z, "low": 0.9, "high": 1.1, "elbo": 0.5, "ess": 0.4, "khat": 0.3, **fields}


def line(figure: Figure, label: str, ax: int = 0):
    (found,) = [one for one in figure.axes[ax].lines if str(one.get_label()).startswith(label)]
    return found


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def title(figure: Figure) -> str:
    return figure.axes[0].get_title(loc="left")


def contour_levels(figure: Figure) -> list[float]:
    """The levels of the contour lines: not those of the fills, whose last one is infinite."""
    sets = [c for c in figure.axes[0].collections if hasattr(c, "levels")]
    return [level for c in sets for level in c.levels] if not sets else list(sets[-1].levels)


def stairs(figure: Figure, ax: int = 0) -> dict[str, np.ndarray]:
    return {patch.get_label(): patch.get_data().values for patch in figure.axes[ax].patches}


def evaluated(sampler: Sampler, n: int = 16) -> tuple:
    path = rollout(sampler.dynamics, n, torch.Generator().manual_seed(0))
    with torch.no_grad():
        return evaluate(sampler.dynamics, path), path.times


# --- samples


def test_plane_of_two_dimensions_shows_the_density():
    target = half_gaussian(2)
    figure = plot_samples(target, draws(500, 2))
    assert title(figure) == "Samples over the density"
    assert contour_levels(figure) == [-12.5, -8.0, -4.5, -2.0, -0.5]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("coordinate 0", "coordinate 1")
    lines = figure.axes[0].collections[1]
    edges = np.concatenate([path.vertices for path in lines.get_paths()])
    spacing = np.diff(figure.axes[0].get_xlim())[0] / 149
    assert edges[:, 0].min() > -spacing, "contours reach into the half space of zero density"


def test_swapped_coordinates_swap_the_axes():
    target = Gaussian(mean=[3.0, -2.0], covariance=0.01)
    figure = plot_samples(target, target.sample(300), coordinates=(1, 0))
    vertices = np.concatenate([path.vertices for path in figure.axes[0].collections[1].get_paths()])
    assert figure.axes[0].get_xlabel() == "coordinate 1"
    np.testing.assert_allclose(vertices.mean(0), [-2.0, 3.0], atol=0.1)
    np.testing.assert_allclose(figure.axes[0].collections[-1].get_offsets().mean(0), [-2.0, 3.0], atol=0.1)


def test_higher_dimensions_show_exact_samples_or_say_that_it_is_a_slice():
    x = draws(200, 5)
    exact = plot_samples(Funnel(5, scale=1.0), x)
    assert title(exact) == "Samples over exact samples"
    assert len(contour_levels(exact)) == 3
    sliced = plot_samples(half_gaussian(5), x)
    assert "slice of the density, through the best sample" in title(sliced)
    assert contour_levels(sliced) == [-12.5, -8.0, -4.5, -2.0, -0.5]


def test_slice_passes_through_the_best_sample():
    # Coordinate 2 decides where the density is in the plane: at its own value in both coordinates.
    target = FunctionTarget(lambda x: -50 * ((x[..., :2] - x[..., 2:]) ** 2).sum(-1) - (x[..., 2] - 1) ** 2, 3)
    x = torch.cat([draws(50, 3), torch.tensor([[1.0, 1.0, 1.0]])])
    vertices = [path.vertices for path in plot_samples(target, x).axes[0].collections[1].get_paths()]
    np.testing.assert_allclose(np.concatenate(vertices).mean(0), [1.0, 1.0], atol=0.1)


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_density_that_is_nowhere_usable_leaves_the_samples(value):
    target = FunctionTarget(lambda x: torch.full_like(x[..., 0], value), 2)
    figure = plot_samples(target, draws(50, 2))
    assert contour_levels(figure) == []
    assert labels(figure) == ["zero or undefined in this view", "50 of 50 samples"]


def test_samples_out_of_view_are_counted():
    target = GaussianMixture(means=[[0.0, 0.0], [2.0, 0.0]])
    x = torch.cat([draws(20, 2), torch.tensor([[1e6, 0.0], [math.nan, 0.0]])])
    assert labels(plot_samples(target, x))[-1] == "22 of 22 samples, 2 out of view"


@pytest.mark.parametrize("coordinates", [(0, 0), (0, 2), (-1, 0)])
def test_coordinates_outside_the_target_are_refused(coordinates):
    with pytest.raises(InputError, match="two different numbers from 0 to 1"):
        plot_samples(half_gaussian(2), draws(10, 2), coordinates)


def test_one_dimension_shows_the_normalised_density():
    log_z = 0.5 * math.log(2 * math.pi) + math.log(0.5 * (1 + math.erf(0.5 / math.sqrt(2))))
    known = plot_samples(half_gaussian(1, log_z), draws(300, 1))
    grid, density = line(known, "density").get_data()
    assert density[grid < 0].max() == 0
    assert density.max() == pytest.approx(math.exp(-log_z), rel=1e-3)
    guessed = line(plot_samples(half_gaussian(1), draws(300, 1)), "density, normalised over this view")
    area = torch.trapezoid(torch.tensor(guessed.get_ydata()), torch.tensor(guessed.get_xdata()))
    assert float(area) == pytest.approx(1, abs=0.01)
    assert known.axes[0].get_xlabel() == "coordinate 0"


# --- marginals


def test_marginals_show_samples_weights_and_exact_samples():
    target = Funnel(10, scale=1.0)
    x = target.sample(400, torch.Generator().manual_seed(0))
    figure = plot_marginals(target, x, torch.where(x[:, 0] > 0, 0.0, -math.inf))
    assert len(figure.axes) == 8
    assert [ax.get_xlabel() for ax in figure.axes] == [f"coordinate {c}" for c in range(8)]
    assert "first 8 of 10" in figure.get_suptitle()
    curves = stairs(figure)
    positive = int((x[:, 0] > 0).sum())
    assert list(curves) == ["samples", "exact samples", f"weighted samples (ESS {positive:.1f})"]
    width = 20 / 51
    for name, density in curves.items():
        assert density.sum() * width == pytest.approx(1, abs=1e-3), name
    centres = -10 + width * (np.arange(51) + 0.5)
    assert curves[f"weighted samples (ESS {positive:.1f})"][centres < -width].sum() == 0


def test_marginals_without_exact_samples_or_usable_weights():
    figure = plot_marginals(half_gaussian(5), draws(30, 5), torch.full((30,), -math.inf))
    assert len(figure.axes) == 5
    assert list(stairs(figure)) == ["samples"]
    assert len(plot_marginals(half_gaussian(5), draws(30, 5), max_coordinates=2).axes) == 2


# --- training


def test_training_marks_the_truth_and_claims_no_interval_without_an_upper_end():
    history = [entry(10), entry(20), entry(30, high=None), entry(40, elbo=None), entry(50, high=None)]
    figure = plot_training(history, true_log_z=1.25)
    assert len(figure.axes) == 2
    assert figure.axes[1].get_xlabel() == "training step"
    assert list(line(figure, "true log Z").get_ydata()) == [1.25, 1.25]
    assert list(line(figure, "no upper end").get_xdata()) == [30, 50]
    band, bars = figure.axes[0].collections
    spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in band.get_paths()]
    assert [span for span in spans if span[0] < span[1]] == [(10, 20)]
    assert [segment[0, 0] for segment in bars.get_segments()] == [40]
    np.testing.assert_array_equal(line(figure, "ELBO").get_ydata(), [0.5, 0.5, 0.5, math.nan, 0.5])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [40.0] * 5)


def test_training_view_forgets_early_bounds_and_says_so():
    history = [entry(k, elbo=-1e6 if k < 3 else 0.5) for k in range(10)]
    history[7]["elbo"] = -1e5
    low, high = (figure := plot_training(history, true_log_z=1.25)).axes[0].get_ylim()
    assert -1 < low < 0.5 and 1.25 < high < 2
    assert "clipped to the second half" in title(figure)
    assert "clipped" not in title(plot_training([entry(k) for k in range(10)]))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_training_of_which_nothing_is_finite(length):
    history = [entry(k, log_z=None, low=None, high=None, elbo=None) for k in range(length)]
    figure = plot_training(history)
    assert "ELBO" in labels(figure)
    assert "true" not in " ".join(labels(figure))
    figure.canvas.draw()


# --- log-weights


def test_log_weights_mark_estimate_bound_and_truth():
    log_weight = 0.5 * draws(500, 1)[:, 0]
    estimate = estimate_log_z(log_weight)
    figure = plot_log_weights(log_weight, estimate, true_log_z=0.125)
    assert list(line(figure, "log Z estimate").get_xdata()) == [estimate.log_z] * 2
    assert list(line(figure, "ELBO").get_xdata()) == [estimate.elbo] * 2
    assert list(line(figure, "true log Z").get_xdata()) == [0.125] * 2
    assert figure.axes[0].get_xlabel() == "log importance weight (nats)"
    assert "its 95 % interval" in labels(figure)
    below = int((log_weight < figure.axes[0].get_xlim()[0]).sum())
    assert title(figure) == f"500 log-weights: 0 of weight zero, {below} left of the view"
    assert below <= 10 and log_weight.max() < figure.axes[0].get_xlim()[1]


def test_log_weights_count_zeros_and_claim_no_interval_without_an_upper_end():
    log_weight = torch.tensor([0.0, 1.0, -math.inf, math.nan, math.inf, -1e5])
    figure = plot_log_weights(log_weight, replace(estimate_log_z(log_weight), high=math.inf))
    assert title(figure).startswith("6 log-weights: 3 of weight zero")
    assert "its 95 % interval" not in labels(figure)
    assert any(label.startswith("ELBO = ") for label in labels(figure))


@pytest.mark.parametrize("value", [-math.inf, 164.7])
def test_log_weights_that_are_all_equal(value):
    figure = plot_log_weights(torch.full((40,), value))
    assert f"{40 if value < 0 else 0} of weight zero" in title(figure)
    figure.canvas.draw()


# --- all estimates


def test_estimates_stand_on_one_axis():
    estimate = estimate_log_z(torch.randn(300, generator=torch.Generator().manual_seed(0)))
    open_ended = replace(estimate, log_z=1.5, low=-1.0, high=math.inf)
    figure = plot_estimates({"weights": estimate, "reference": open_ended}, {"ELBO": -2.0, "EUBO": 3.0}, 0.25)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["weights", "reference", "ELBO", "EUBO"]
    points = {(float(line.get_xdata()[0]), int(line.get_ydata()[0])) for line in ax.lines if len(line.get_xdata()) == 1}
    assert points == {(estimate.log_z, 0), (1.5, 1), (-2.0, 2), (3.0, 3)}
    spans = [(note.xyann[0], note.xy[0]) for note in ax.texts]
    assert spans == [(estimate.low, estimate.high), (-1.0, ax.get_xlim()[1])]
    assert list(line(figure, "true log Z").get_xdata()) == [0.25] * 2
    figure.canvas.draw()


def test_what_is_far_below_does_not_flatten_the_rest():
    # As the ELBO of particles that overlap.
    deep = torch.cat([torch.linspace(-3, 0, 90), torch.full((10,), -1e12)])
    estimate = estimate_log_z(deep)
    low, high = plot_log_weights(deep, estimate).axes[0].get_xlim()
    assert high - low < 2000
    figure = plot_estimates({"weights": estimate}, {"ELBO": estimate.elbo, "EUBO": 3.0})
    low, high = figure.axes[0].get_xlim()
    assert low < estimate.log_z < 3 < high < 10 and low > -10
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["weights", "EUBO", "ELBO"]
    assert "-1e+11, out of view" in [text.get_text() for text in figure.axes[0].texts]
    figure = plot_training([entry(k, elbo=-1e15) for k in range(3)])
    low, high = figure.axes[0].get_ylim()
    assert high - low < 2000 and "far below left out" in title(figure)


# --- balance


def test_balance_along_trajectories():
    trajectory, times = evaluated(Sampler(Gaussian(mean=[1.0, -1.0]), grid=7))
    figure = plot_balance(trajectory, times)
    t, median = line(figure, "median").get_data()
    np.testing.assert_allclose(t, times)
    np.testing.assert_allclose(median, (trajectory.u - trajectory.u.mean(0)).quantile(0.5, dim=1).detach())
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("time t", "imbalance (nats)")
    assert title(figure) == "Balance along 16 trajectories"


def test_balance_without_a_flow_shows_the_ends():
    trajectory, times = evaluated(Sampler(half_gaussian(2), control=FourierMLP, flow=None, grid=4), 64)
    figure = plot_balance(trajectory, times)
    num_zero = int(trajectory.log_prob.isneginf().sum())
    assert num_zero
    assert title(figure) == f"Balance of the two ends of 64 trajectories, {num_zero} of which end at density zero"
    assert len(stairs(figure)["trajectories"]) == 51


# --- all of them


@pytest.mark.parametrize(
    "target", [half_gaussian(1), GaussianMixture(means=[[0.0, 0.0], [2.0, 0.0]]), Funnel(5)], ids=["1", "2", "5"]
)
def test_saved_figures_are_images_and_cost_nothing(tmp_path, target: Target):
    sampler = Sampler(target, grid=3)
    x, log_weight = sampler.sample(60, seed=0, return_log_weights=True)
    spent, counter = sampler.num_target_evaluations, sampler.counter
    paths = save_figures(tmp_path / "new", sampler, x, log_weight, estimate_log_z(log_weight), [entry(1), entry(2)])
    assert [path.name for path in paths] == [f"{name}.png" for name in NAMES]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG\r\n") and path.stat().st_size > 5000, path
    assert sampler.num_target_evaluations == spent and sampler.counter is counter


def test_no_figure_of_training_without_one_nor_of_a_flow_that_was_not_trained(tmp_path, monkeypatch):
    sampler = Sampler(Gaussian(mean=[1.0, -1.0]), grid=3)
    seen = []
    monkeypatch.setattr("diffsampler.report.figures.plot_balance", lambda *a: seen.append(a[0]) or plot_balance(*a))
    x, log_weight = sampler.sample(30, seed=0, return_log_weights=True)
    paths = save_figures(tmp_path, sampler, x, log_weight, estimate_log_z(log_weight), [], with_flow=False)
    assert [path.stem for path in paths] == [name for name in NAMES if name != "training"]
    assert seen[0].log_flow is None


def test_balance_of_a_loss_without_log_z_is_about_the_estimate(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("diffsampler.report.figures.plot_balance", lambda *a: drawn.append(a[0]) or plot_balance(*a))
    sampler = Sampler(Gaussian(mean=[1.0, -1.0]), flow=None, grid=3)
    sampler.policy.log_z.data.fill_(-40.0)
    x, log_weight = sampler.sample(200, seed=0, return_log_weights=True)
    estimate = estimate_log_z(log_weight)
    for learned, expected in ((True, -40.0), (False, estimate.log_z)):
        save_figures(tmp_path, sampler, x, log_weight, estimate, [], with_log_z=learned)
        assert float(drawn[-1].log_z.detach()) == pytest.approx(expected)
