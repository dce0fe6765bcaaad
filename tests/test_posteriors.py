"""Posteriors of examples/posteriors, and the oracles of their benchmark."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.distributions import StudentT

from examples.benchmarks import posterior_methods, posterior_truths, posteriors
from examples.benchmarks.bridge import bridge
from examples.benchmarks.posterior_tables import tables, worst_z
from examples.posteriors import POSTERIORS

numpyro = [pytest.mark.adapters, pytest.mark.skipif(find_spec("numpyro") is None, reason="needs numpyro")]


@pytest.mark.parametrize("name", POSTERIORS)
def test_densities_and_quantiles_say_the_same(name: str, generator: torch.Generator) -> None:
    model = POSTERIORS[name]()
    x = torch.randn(8, model.dim, generator=generator, dtype=torch.float64)
    log_prob, score = model.log_prob_and_score(x)
    assert log_prob.shape == (8,) and log_prob.isfinite().all() and score.isfinite().all()
    u = torch.rand(4000, model.dim, generator=generator, dtype=torch.float64)
    of_cube = model.free(model.from_cube(u))
    likelihood = model.log_likelihood_of(model.from_cube(u[:8]))
    assert likelihood.shape == (8,) and likelihood.isfinite().all()
    drawn = model.starting_points(4000, generator)
    if drawn is not None:
        # Means of 12 to 62 numbers in all models, 5.5 standard errors each: a false alarm in 4e-8 a number.
        error = ((of_cube.var(0) + drawn.var(0)) / 4000).sqrt()
        assert ((of_cube.mean(0) - drawn.mean(0)).abs() < 5.5 * error).all()


def test_both_forms_of_schools_are_one_prior(generator: torch.Generator) -> None:
    u = torch.rand(50, 10, generator=generator, dtype=torch.float64)
    centred, other = (POSTERIORS[name]() for name in ("schools_centred", "schools_noncentred"))
    torch.testing.assert_close(
        centred.log_likelihood_of(centred.from_cube(u)), other.log_likelihood_of(other.from_cube(u))
    )


def test_truths_of_one_and_two_numbers() -> None:
    for name, truth in (("schools_centred", "schools"), ("interaction", "interaction")):
        assert POSTERIORS[name]().log_z == pytest.approx(posterior_truths.TRUTHS[truth](), abs=1e-4)
    # A Gaussian integral by the rule itself, and by the closed form of a regression without features.
    log_f = torch.distributions.Normal(0.0, 1.0).log_prob
    assert posterior_truths.trapezoid(lambda x: log_f(x).sum(-1), [-9.0, -9.0], [9.0, 9.0], 61) == pytest.approx(0)
    y = torch.tensor([1.0, -2.0]).double()
    found = posterior_truths.gaussian_evidence(torch.eye(2).double(), 3 * torch.ones(1, 2).double(), y.new_ones(1), y)
    exact = torch.distributions.Normal(0.0, torch.tensor(10.0).double().sqrt()).log_prob(y).sum()
    torch.testing.assert_close(found[0], exact)


def test_bridge_sampling(generator: torch.Generator) -> None:
    """Tails that a normal proposal lacks; 5 of its own standard errors, a false alarm in 6e-7."""
    torch.manual_seed(0)
    density = StudentT(5.0)
    x = density.sample((20_000, 2)).double()
    log_z, error = bridge(lambda x: density.log_prob(x).sum(-1) + 3.0, x, 1.0, generator)
    assert error < 0.01 and abs(log_z - 3.0) < 5 * error


def test_effective_draws_of_chains(generator: torch.Generator) -> None:
    """Of an autoregression, exactly (1 - r) / (1 + r) of the draws."""
    noise, r = torch.randn(4, 20_000, 1, generator=generator, dtype=torch.float64), 0.8
    x = noise.clone()
    for k in range(1, x.shape[1]):
        x[:, k] = r * x[:, k - 1] + math.sqrt(1 - r**2) * noise[:, k]
    # 80 batches: the share's relative error is sqrt(2 / 80) = 16 %; 4.5 of them.
    assert posterior_methods.effective_share(x) == pytest.approx(1 / 9, rel=0.71)
    assert posterior_methods.effective_share(noise) == pytest.approx(1, rel=0.71)
    assert (
        posterior_methods.rhat(noise) < 1.001 < 1.1 < posterior_methods.rhat(noise + torch.arange(4.0)[:, None, None])
    )


def line(method: str, log_z: float, **more: object) -> dict:
    moments = {"mean": [0.0], "mean_error": [0.03], "variance": [1.0], "variance_error": [0.04]}
    quantiles = torch.special.ndtri(torch.arange(1, 100).double() / 100)[:, None].tolist()
    cost = {"num_target_evaluations": 1000, "cpu_seconds": 10.0}
    run = {"model": "mixture", "method": method, "seed": 0, "log_z": log_z, "low": log_z - 0.1, "high": log_z + 0.1}
    return {**run, **moments, "quantiles": quantiles, **cost, **more}


def test_tables() -> None:
    oracle = line("nuts", -383.0)
    mine = line("diffsampler", -383.05, mean=[0.2], mean_error=[0.04], shares=[1 / 6] * 5 + [0.2])
    late = {"model": "mixture", "method": "dynesty", "seed": 0, "failed": "cut off after 9 CPU seconds"}
    text = tables([oracle, mine, {**late, "cpu_seconds": 9}, line("pocomc", -382.0)])
    assert worst_z(mine, oracle) == pytest.approx(4.0)
    assert "-0.050 ± 0.100 |" in text and "+1.000 ± 0.100* |" in text and "| 4.0, 90%, 20% |" in text
    assert "| diffsampler | 1 of 1 | 1 of 1 | 1 | 10 | 1,000 |" in text and "| dynesty | 0 of 1 | 0 of 0 |" in text
    assert "cut off" in text and "> 9 s" in text


@pytest.mark.slow
def test_truths_of_all() -> None:
    truths = {**posterior_truths.TRUTHS, "schools_centred": posterior_truths.TRUTHS["schools"]}
    for name in ("varying_intercept", "gaussian_process", "garch"):
        assert POSTERIORS[name]().log_z == pytest.approx(truths[name](), abs=1e-3), name


@pytest.mark.slow
def test_benchmark_runs_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "posteriors.jsonl"
    arguments = ["posteriors", "--models", "gaussian_process", "--methods", "reference", "--file", str(file)]
    monkeypatch.setattr("sys.argv", arguments)
    posteriors.main()
    first = capsys.readouterr().out
    (found,) = map(json.loads, file.read_text().splitlines())
    # Weights' standard error is below 0.01; the truth is by quadrature.
    assert abs(found["log_z"] - POSTERIORS["gaussian_process"]().log_z) < 0.05 and len(found["mean"]) == 3
    posteriors.main()
    assert capsys.readouterr().out == first and len(file.read_text().splitlines()) == 1
    monkeypatch.setattr("sys.argv", [*arguments, "--seeds", "1", "--minutes", "0.02"])
    posteriors.main()
    assert "cut off" in capsys.readouterr().out


@pytest.mark.parametrize("name", [pytest.param(name, marks=numpyro) for name in POSTERIORS])
def test_twins_of_numpyro_are_the_same_density(name: str, generator: torch.Generator) -> None:
    from diffsampler.models import NumPyroTarget
    from examples.benchmarks.posterior_oracles import TWINS, observed

    model = POSTERIORS[name]()
    twin = NumPyroTarget(TWINS[name], (observed(model),))
    x = torch.randn(20, model.dim, generator=generator, dtype=torch.float64)
    assert list(twin.sites) == list(model.declared)
    torch.testing.assert_close(model.log_prob(x), twin.log_prob(x), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=numpyro) for name in ("garch", "mixture")])
def test_moments_and_evidence_beside_nuts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 moments within 5.5 standard errors of both: a false alarm in 1e-6."""
    monkeypatch.setattr(posterior_methods, "NUTS", {"num_draws": 5000, "num_warmup": 1000, "num_chains": 4})
    ((oracle,), (found,)) = (posteriors.perform(posteriors.Run(name, method, 0)) for method in ("nuts", "reference"))
    assert worst_z(found, oracle) < 5.5
    assert abs(found["log_z"] - oracle["log_z"]) < 0.1
    assert all(abs(6 * share - 1) < 0.1 for share in found.get("shares", []))
