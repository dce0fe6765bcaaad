"""Posteriors: equally weighted draws, expectations, summaries."""

import importlib
import math
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from torch.distributions import LKJCholesky, Normal

from diffsampler import InputError, Sampler
from diffsampler.log_z import estimate_log_z
from diffsampler.models import ModelTarget, Posterior, positive, real
from diffsampler.models.posterior import posterior_of
from diffsampler.models.summary import summarise
from diffsampler.report.parameter_figures import plot_parameters
from targets import Gaussian

NUM_DRAWS = 40_000


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    """Weighted draws of N(1, 0.5^2) x LogNormal(0, 0.5) x N(0, 1)^2, from normals of width 1."""
    torch.set_default_dtype(torch.float64)
    target = ModelTarget(
        lambda p: (
            Normal(1.0, 0.5).log_prob(p["mu"])
            + Normal(0.0, 0.5).log_prob(p["tau"].log())
            - p["tau"].log()
            + Normal(0, 1).log_prob(p["z"]).sum(-1)
        ),
        {"mu": real(), "tau": positive(), "z": real(2)},
        dims={"z": ["school"]},
        coords={"school": ["A", "B"]},
    )
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(NUM_DRAWS, 4, generator=generator)
    log_weight = target.log_prob(x) - Normal(0, 1).log_prob(x).sum(-1)
    log_weight[:5] = torch.tensor([-math.inf, math.nan, -math.inf, math.inf, -math.inf])
    return posterior_of(target, x, log_weight, estimate_log_z(log_weight), 3000, generator)


def test_draws_are_as_many_as_asked_for_and_as_heavy_as_their_weights(posterior: Posterior) -> None:
    assert {name: tuple(value.shape) for name, value in posterior.values.items()} == {
        "mu": (3000,),
        "tau": (3000,),
        "z": (3000, 2),
    }
    assert posterior.num_distinct == len(posterior.values["mu"].unique()) and 2000 < posterior.num_distinct <= 3000
    assert (posterior.rows.diff() < 0).float().mean() > 0.3  # not sorted
    assert not set(posterior.rows.tolist()) & {0, 1, 2, 3, 4}
    # Means of 3000 draws within 4.5 standard errors, 7e-6 each.
    assert abs(float(posterior.values["mu"].mean()) - 1) < 4.5 * 0.5 / math.sqrt(3000) * 1.5
    assert abs(float(posterior.values["tau"].log().mean())) < 4.5 * 0.5 / math.sqrt(3000) * 1.5
    # In no order that weights have: the first half is as the second.
    halves = posterior.values["mu"].view(2, -1).mean(1)
    assert abs(float(halves[0] - halves[1])) < 4.5 * 0.5 * 2 / math.sqrt(3000) * 1.5


def test_expectations_have_errors_that_hold(posterior: Posterior) -> None:
    for f, exact in (
        ("mu", 1.0),
        (lambda v: v["mu"].square(), 1.25),
        (lambda v: v["tau"], math.exp(0.125)),
        (lambda v: torch.stack([v["z"][:, 0] * v["z"][:, 1], v["mu"]], -1), (0.0, 1.0)),
    ):
        found, exact = posterior.expectation(f), torch.tensor(exact)
        assert found.value.shape == exact.shape
        # 4.5 standard errors, 7e-6 for each of five.
        assert ((found.value - exact).abs() < 4.5 * found.standard_error).all() and (found.standard_error < 0.03).all()
    with pytest.raises(InputError, match="'sigma'.*mu, tau, z"):
        posterior.expectation("sigma")
    with pytest.raises(InputError, match="asks for 'sigma'; there are mu, tau, z"):
        posterior.expectation(lambda v: v["sigma"])
    with pytest.raises(InputError, match="f must be a function"):
        posterior.expectation(3)


def test_a_summary_of_named_rows(posterior: Posterior) -> None:
    summary = posterior.summary()
    assert list(summary.rows) == ["mu", "tau", "z[A]", "z[B]"]
    row = summary["mu"]
    assert list(row) == ["mean", "sd", "hdi_3%", "hdi_97%", "ess", "mcse"]
    mean, error = posterior.expectation("mu").value, posterior.expectation("mu").standard_error
    assert row["mean"] == pytest.approx(float(mean)) and row["mcse"] == pytest.approx(float(error), rel=1e-3)
    assert row["ess"] == pytest.approx((row["sd"] / row["mcse"]) ** 2)
    # Of N(1, 0.5), +- 1.881 sd; ends by the order statistics of 10 000 effective draws err by 0.02 at one sigma.
    assert row["sd"] == pytest.approx(0.5, abs=0.03)
    assert row["hdi_97%"] - row["hdi_3%"] == pytest.approx(2 * 1.881 * 0.5, abs=0.15)
    # Of a skewed density the narrowest interval is not the one between quantiles: both ends lie lower.
    low, high = (math.exp(0.5 * q) for q in (-1.881, 1.881))
    assert summary["tau"]["hdi_3%"] < low - 0.05 and summary["tau"]["hdi_97%"] < high - 0.05
    half = posterior.summary(0.5)["mu"]
    assert list(half)[2:4] == ["hdi_25%", "hdi_75%"] and half["hdi_75%"] - half["hdi_25%"] < 1
    assert "z[B]" in str(posterior) and f"{posterior.num_distinct:,} of them distinct" in str(posterior)
    with pytest.raises(InputError, match="hdi_prob"):
        posterior.summary(94)
    with pytest.raises(InputError, match="z\\[A\\]"):
        summary["z"]


def test_numbers_that_never_vary_have_no_row(tmp_path: Path) -> None:
    """The zeros of a triangular matrix, and the one on its diagonal; a parameter that never varies as a whole has."""
    target = ModelTarget(prior={"L": LKJCholesky(2, 2.0), "mu": Normal(0.0, 1.0)})
    x = torch.randn(50, 2)
    posterior = posterior_of(target, x, torch.zeros(50), estimate_log_z(torch.zeros(50)), 20, None)
    summary = posterior.summary()
    assert list(summary.rows) == ["L[1, 0]", "L[1, 1]", "mu"]
    figure = plot_parameters(target.constrain(x), torch.zeros(50), summary)
    assert [ax.get_xlabel() for ax in figure.axes] == ["L[1, 0]", "L[1, 1]", "mu"]
    lowest = {ax.get_xlabel(): ax.get_xlim()[0] for ax in figure.axes}
    assert lowest["L[1, 1]"] > 0 > lowest["L[1, 0]"]  # each has its own numbers
    assert list(summarise({"one": torch.ones(5, 2)}, torch.zeros(5), 0.9, {}).rows) == ["one[0]", "one[1]"]


def test_one_weight_that_is_all_there_is_has_no_small_error() -> None:
    target = ModelTarget(lambda p: -0.5 * p["mu"].square(), {"mu": real()})
    x, log_weight = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)), torch.full((1000,), -15.0)
    log_weight[7] = 5.0
    posterior = posterior_of(target, x, log_weight, estimate_log_z(log_weight), 100)
    assert posterior.num_distinct == 1
    assert posterior.summary()["mu"]["ess"] < 1.1


def test_targets_without_names_have_an_x() -> None:
    sampler = Sampler(Gaussian(mean=[1.0, -1.0]), grid=5)
    posterior = sampler.posterior(50, seed=0, num_samples=100)
    assert posterior.values["x"].shape == (50, 2) and list(posterior.summary().rows) == ["x[0]", "x[1]"]
    again = sampler.posterior(50, seed=0, num_samples=100)
    assert torch.equal(again.values["x"], posterior.values["x"])


@pytest.mark.adapters
def test_arviz_reads_it(posterior: Posterior) -> None:
    arviz_stats = pytest.importorskip("arviz_stats")
    pytest.importorskip("arviz_base")
    tree = posterior.to_arviz()
    assert tree["posterior"]["z"].dims == ("chain", "draw", "school")
    assert list(tree["posterior"]["school"].values) == ["A", "B"]
    assert {"lp", "energy", "log_weight"} <= set(tree["sample_stats"])
    assert tree["sample_stats"].attrs["log_evidence"] == pytest.approx(posterior.estimate.log_z)
    table = arviz_stats.summary(tree)
    assert list(table.index) == ["mu", "tau", "z[A]", "z[B]"]
    frame = posterior.to_dataframe()
    assert list(frame.columns) == ["mu", "tau", "z[A]", "z[B]"] and len(frame) == 3000


@pytest.mark.adapters
@pytest.mark.parametrize("name", ["plot_dist", "plot_forest", "plot_pair"])
def test_figures_by_arviz(name: str, posterior: Posterior, tmp_path: Path) -> None:
    try:
        arviz_plots = importlib.import_module("arviz_plots")
    except (ImportError, AttributeError):  # the second of 0.8 with matplotlib 3.11
        pytest.skip("needs arviz_plots")
    figure = getattr(arviz_plots, name)(posterior.to_arviz(), var_names=["mu", "tau"], backend="matplotlib")
    figure.savefig(tmp_path / "figure.png")
    assert plt.imread(tmp_path / "figure.png").std() > 0.01, "something is drawn"


def in_blocks(**options: object) -> ModelTarget:
    """Six numbers, of three schools in two years."""
    return ModelTarget(
        prior={"mu": Normal(0.0, 1.0), "effect": Normal(torch.zeros(3), 1.0)},
        log_likelihood=lambda p, data: Normal(p["mu"][:, None, None] + p["effect"][:, None], 1.0).log_prob(data["y"]),
        data={"y": torch.arange(6.0).reshape(2, 3), "weight": torch.ones(3)},
        **options,
    )


LABELS = {"school": ["A", "B", "C"], "year": [2001, 2002]}


def test_terms_have_the_dimensions_of_data_or_of_labels_for_them_alone() -> None:
    for options, expected in (
        ({}, None),
        ({"dims": {"y": ["year", "school"]}}, ["year", "school"]),
        ({"coords": LABELS}, ["year", "school"]),
        ({"dims": {"effect": "school"}, "coords": LABELS}, None),  # whose labels may be those of another dimension
        ({"coords": {**LABELS, "month": [1, 2]}}, None),
    ):
        target = in_blocks(**options)
        assert target.dims_of_terms((2, 3)) == expected
        assert target.log_likelihoods(torch.zeros(5, 4)).shape == (5, 2, 3)
    with pytest.raises(InputError, match="coords of year must be 2 labels, for y, got 3"):
        in_blocks(dims={"y": ["year", "school"]}, coords={**LABELS, "year": [1, 2, 3]})
    with pytest.raises(InputError, match="dims of y must be 2 names"):
        in_blocks(dims={"y": ["year"]})


@pytest.mark.adapters
def test_dimensions_of_observations_in_arviz() -> None:
    arviz_stats = pytest.importorskip("arviz_stats")
    pytest.importorskip("arviz_base")
    target = in_blocks(dims={"effect": "school", "y": ["year", "school"]}, coords=LABELS)
    tree = Sampler(target, grid=3).posterior(100, num_samples=1000).to_arviz()
    assert tree["log_likelihood"]["data"].dims == ("chain", "draw", "year", "school")
    assert tree["observed_data"]["y"].dims == ("year", "school")
    assert list(tree["log_likelihood"]["year"].values) == LABELS["year"]
    assert arviz_stats.loo(tree, pointwise=True).elpd_i.dims == ("year", "school")


def test_data_that_are_called_as_a_parameter() -> None:
    pytest.importorskip("arviz_base")
    target = ModelTarget(
        prior={"y": Normal(torch.zeros(3), 1.0)},
        log_likelihood=lambda p, data: Normal(p["y"].sum(-1, keepdim=True), 1.0).log_prob(data["y"]),
        data={"y": torch.ones(5)},
        dims={"y": ["school"]},
    )
    with pytest.raises(InputError, match="data y have another shape than parameter y"):
        Sampler(target, grid=3).posterior(10, num_samples=100).to_arviz()


@pytest.mark.adapters
def test_leave_one_out_by_arviz() -> None:
    arviz_stats = pytest.importorskip("arviz_stats")
    pytest.importorskip("arviz_base")
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(30, generator=generator)
    target = ModelTarget(
        prior={"mu": Normal(0.0, 1.0)}, log_likelihood=lambda p, y: Normal(p["mu"][:, None], 1.0).log_prob(y), data=y
    )
    x = (y.sum() / 31 + torch.randn(4000, generator=generator) / math.sqrt(31)).unsqueeze(-1)
    log_weight = target.log_prob(x) - Normal(y.sum() / 31, 1 / math.sqrt(31)).log_prob(x[:, 0])
    posterior = posterior_of(target, x, log_weight, estimate_log_z(log_weight), 4000, generator)
    found = arviz_stats.loo(posterior.to_arviz())
    # In closed form: y_i given the others is N(sum of them / 30, 1 + 1 / 30).
    exact = Normal((y.sum() - y) / 30, math.sqrt(1 + 1 / 30)).log_prob(y).sum()
    assert float(found.elpd) == pytest.approx(float(exact), abs=0.1)


def test_names_that_arviz_has_taken_are_refused() -> None:
    pytest.importorskip("arviz_base")
    target = ModelTarget(lambda p: -0.5 * p["draw"].square(), {"draw": real()})
    posterior = Sampler(target, grid=3).posterior(10, num_samples=100)
    with pytest.raises(InputError, match="dimensions called draw already"):
        posterior.to_arviz()
