"""PyMC, NumPyro, Pyro and Stan: the same densities, names, and what is said of what cannot be."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from schools import (
    EFFECTS,
    ERRORS,
    FORMS,
    LOG_Z,
    NAMES,
    by_numpyro,
    by_pymc,
    by_pyro,
    by_stan,
    by_torch,
)
from torch import Tensor
from torch.distributions import Dirichlet, Normal

from diffsampler import InputError, Sampler, reference
from diffsampler.counted import CountedTarget
from diffsampler.log_z import estimate_log_z
from diffsampler.models import ModelTarget, NamedTarget, NumPyroTarget, PyMCTarget, PyroTarget, StanModel
from diffsampler.models.posterior import posterior_of


def needing(module: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.adapters, pytest.mark.skipif(find_spec(module) is None, reason=f"needs {module}")]


PACKAGES = [
    pytest.param(by_pymc, id="pymc", marks=needing("pymc")),
    pytest.param(by_numpyro, id="numpyro", marks=needing("numpyro")),
    pytest.param(by_pyro, id="pyro", marks=needing("pyro")),
    pytest.param(by_stan, id="stan"),
]
MADE: dict[Any, NamedTarget] = {}  # PyTensor and JAX compile for seconds


def made(make: Callable[..., NamedTarget], form: str = "noncentred") -> NamedTarget:
    if (make, form) not in MADE:
        MADE[make, form] = make(form)
    return MADE[make, form]


def points(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 10, generator=torch.Generator().manual_seed(seed))


def order(target: NamedTarget, names: list[str]) -> list[int]:
    """Which free number of a target moves which number of the parameters, these one after the other."""
    here, moved = (target.constrain(x) for x in (torch.zeros(1, target.dim), torch.eye(target.dim)))
    has_moved = torch.cat([(moved[name] != here[name]).reshape(target.dim, -1) for name in names], -1)
    assert (has_moved.sum(0) == 1).all()
    return has_moved.int().argmax(0).tolist()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", PACKAGES)
def test_density_and_score_are_those_of_the_same_model_in_torch(make: Callable[..., NamedTarget], form: str) -> None:
    target, expected, x = made(make, form), by_torch(form), points(10)
    names = list(expected.constrain(x))
    theirs = torch.empty_like(x)
    theirs[:, order(target, names)] = x[:, order(expected, names)]
    log_prob, score = target.log_prob_and_score(theirs)
    torch.testing.assert_close(log_prob, expected.log_prob(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(target.log_prob(theirs.view(2, 5, 10)), log_prob.view(2, 5), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score[:, order(target, names)], expected.score(x)[:, order(expected, names)])
    for name in names:
        torch.testing.assert_close(target.constrain(theirs)[name], expected.constrain(x)[name])


@pytest.mark.parametrize("make", PACKAGES)
def test_scores_are_differences_and_reach_what_comes_before(make: Callable[..., NamedTarget]) -> None:
    target, x, step = made(make), points(3), 1e-5
    moves = step * torch.eye(10)
    slopes = (target.log_prob(x[:, None] + moves) - target.log_prob(x[:, None] - moves)) / (2 * step)
    torch.testing.assert_close(target.score(x), slopes, rtol=1e-6, atol=1e-6)
    scale = torch.ones((), requires_grad=True)
    target.log_prob(scale * x).sum().backward()
    torch.testing.assert_close(scale.grad, (target.score(x) * x).sum())


@pytest.mark.parametrize("make", PACKAGES)
def test_a_posterior_has_the_names_of_the_model(make: Callable[..., NamedTarget]) -> None:
    target, generator = made(make), torch.Generator().manual_seed(1)
    x = points(500)
    log_weight = target.log_prob(x) + 0.5 * x.square().sum(-1)
    posterior = posterior_of(target, x, log_weight, estimate_log_z(log_weight), 50, generator)
    assert list(posterior.values) == ["mu", "tau", "eta", "theta"]
    assert posterior.values["theta"].shape == (50, 8) and posterior.values["theta"].dtype == torch.float64
    values = posterior.values
    torch.testing.assert_close(values["theta"], values["mu"][:, None] + values["tau"][:, None] * values["eta"])
    terms = target.log_likelihoods(x[:4])
    expected = Normal(target.constrain(x[:4])["theta"], torch.tensor(ERRORS))
    assert list(terms) == ["log_lik" if make is by_stan else "obs"]
    torch.testing.assert_close(next(iter(terms.values())), expected.log_prob(torch.tensor(EFFECTS)))
    if make is not by_stan:  # what of a program's data is observed nobody says
        assert target.dims["eta"] == ["school"]
        assert np.asarray(target.observed_data["obs"]).tolist() == EFFECTS
    if find_spec("arviz_base") and find_spec("xarray"):
        tree = posterior.to_arviz()
        assert tree["posterior"]["theta"].shape == (1, 50, 8) and tree["log_likelihood"].data_vars
        if make is by_pymc:
            assert tree["posterior"]["theta"].dims == ("chain", "draw", "school")
            assert tree["posterior"]["school"].values.tolist() == NAMES


@pytest.mark.parametrize("make", PACKAGES)
def test_what_is_no_parameter_is_left_out_and_names_of_dimensions_may_be_given(
    make: Callable[..., NamedTarget],
) -> None:
    without = {"transformed_parameters" if make is by_stan else "deterministics": False}
    target = make("noncentred", **without, dims={"eta": ["where"]}, coords={"where": NAMES}, log_z=LOG_Z)
    assert list(target.constrain(points(3))) == ["mu", "tau", "eta"]
    assert target.dims["eta"] == ["where"] and target.coords["where"] == NAMES and target.log_z == LOG_Z


@pytest.mark.parametrize("make", [p for p in PACKAGES if p.id != "stan"])
def test_searches_start_from_the_prior_too(make: Callable[..., NamedTarget]) -> None:
    target = made(make)
    x = target.starting_points(400, torch.Generator().manual_seed(0))
    assert x.shape == (400, 10) and x.dtype == torch.float64
    assert torch.equal(x, target.starting_points(400, torch.Generator().manual_seed(0)))
    values = target.constrain(x)
    # Of 400 draws, 4.5 standard errors of a mean and of a median: 7e-6 each.
    assert abs(float(values["mu"].mean())) < 4.5 * 5 / 20
    assert abs(float((values["tau"] < 5).double().mean()) - 0.5) < 4.5 * 0.5 / 20


@pytest.mark.parametrize("make", PACKAGES)
def test_a_sampler_takes_it(make: Callable[..., NamedTarget]) -> None:
    sampler = Sampler(made(make), grid=5)
    posterior = sampler.posterior(20, seed=0, num_samples=100)
    assert posterior.values["eta"].shape == (20, 8) and sampler.counter.num_evaluations >= 100


@pytest.mark.parametrize("make", PACKAGES)
def test_free_numbers_have_names_for_messages(make: Callable[..., NamedTarget]) -> None:
    names = made(make).coordinate_names
    tau = {by_pymc: "tau_log__", by_stan: "tau"}.get(make, "the free number of tau")
    assert len(names) == 10 and {"mu", tau, "eta.3" if make is by_stan else "eta[3]"} <= {*names}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", PACKAGES)
def test_the_evidence_is_that_of_the_model(make: Callable[..., NamedTarget], form: str) -> None:
    estimate = reference(made(make, form), seed=0).estimate
    # Twice the interval, 3.9 standard errors: 9e-5 at a fixed seed; and what is not known of the exact figure.
    assert abs(estimate.log_z - LOG_Z) < estimate.high - estimate.low + 0.0005


# ---- NumPyro and Pyro


@pytest.mark.adapters
def test_jax_computes_in_float64_and_leaves_its_setting_alone() -> None:
    jax = pytest.importorskip("jax")
    target = made(by_numpyro)
    x = points(1100)
    assert target.log_prob(x).dtype == torch.float64 and jax.numpy.ones(2).dtype == jax.numpy.float32
    torch.testing.assert_close(target.log_prob(x)[1050:], target.log_prob(x[1050:]), rtol=1e-12, atol=1e-12)


@pytest.mark.adapters
def test_simplexes_end_far_out() -> None:
    numpyro, pyro = pytest.importorskip("numpyro"), pytest.importorskip("pyro")
    from numpyro import distributions
    from pyro import distributions as distributions_of_pyro

    shares = ModelTarget(prior={"w": Dirichlet(torch.tensor([1.0, 2.0, 3.0]))})
    for target in (
        NumPyroTarget(lambda: numpyro.sample("w", distributions.Dirichlet(np.array([1.0, 2.0, 3.0])))),
        PyroTarget(lambda: pyro.sample("w", distributions_of_pyro.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))),
    ):
        x = 3 * points(20)[:, :2]
        torch.testing.assert_close(target.log_prob(x), shares.log_prob(x))
        torch.testing.assert_close(target.score(x), shares.score(x))
        far = torch.tensor([[-1e3, 0.0], [-2e3, 0.0], [-4e3, 0.0]])
        assert (target.log_prob(far).diff() < -900).all()


@pytest.mark.adapters
def test_a_discrete_site_is_named() -> None:
    numpyro, pyro = pytest.importorskip("numpyro"), pytest.importorskip("pyro")
    from numpyro import distributions
    from pyro import distributions as distributions_of_pyro

    for kind, model in (
        (NumPyroTarget, lambda: numpyro.sample("z", distributions.Bernoulli(0.3))),
        (PyroTarget, lambda: pyro.sample("z", distributions_of_pyro.Bernoulli(0.3))),
    ):
        said = rf"^{kind.__name__} takes no discrete parameters, and z is discrete: was obs= forgotten there\?"
        with pytest.raises(InputError, match=said):
            kind(model)


@pytest.mark.adapters
def test_what_a_model_cannot_be_called_with_or_observe_is_said() -> None:
    numpyro, pyro = pytest.importorskip("numpyro"), pytest.importorskip("pyro")
    from numpyro import distributions
    from pyro import distributions as distributions_of_pyro

    def in_numpyro(y: Any) -> None:
        mu = numpyro.sample("mu", distributions.Normal(0, 1))
        numpyro.sample("y", distributions.Normal(mu * np.ones(5), 1.0), obs=y)

    def in_pyro(y: Any) -> None:
        mu = pyro.sample("mu", distributions_of_pyro.Normal(0, 1))
        with pyro.plate("n", 5):
            pyro.sample("y", distributions_of_pyro.Normal(mu, 1.0), obs=y)

    for kind, model, array in ((NumPyroTarget, in_numpyro, np.ones), (PyroTarget, in_pyro, torch.ones)):
        name = kind.__name__
        for given, said in (
            ({"args": (array(4),)}, rf"^{name}: what the model observes as y has the shape \(4,\), .* \(5,\)\.$"),
            ({"args": array(5)}, rf"^args of {name} must be a tuple .* such as \(y,\)"),
            ({"args": (array(5), 1.0)}, rf"^{name} cannot call in_.*with 2 args: too many"),
            ({"kwargs": {"x": array(5)}}, rf"^{name} cannot call in_.*the kwargs x: missing a required argument: 'y'"),
            ({"kwargs": [array(5)]}, f"^kwargs of {name} must be a dictionary"),
        ):
            with pytest.raises(InputError, match=said):
                kind(model, **given)


@pytest.mark.adapters
def test_what_vmap_cannot_follow_is_asked_one_by_one() -> None:
    pyro = pytest.importorskip("pyro")
    from pyro import distributions

    def model(y: Tensor) -> None:
        m = pyro.sample("m", distributions.Normal(0, 1))
        if m > 2:
            raise ValueError("too large")
        pyro.sample("w", distributions.Dirichlet(torch.ones(3)))
        pyro.sample("y", distributions.Normal(m, 1), obs=y)

    with pytest.warns(UserWarning, match="cannot follow this model, which is asked one point at a time"):
        target = PyroTarget(model, (torch.tensor(1.0),))
    counted, x = CountedTarget(target), torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    with pytest.warns(UserWarning, match="The log-density at a point has raised ValueError: too large"):
        log_prob = counted.log_prob(x)
    assert log_prob[0].isfinite() and not log_prob[1].isfinite() and counted.num_invalid == 1
    assert target.constrain(x[:1])["w"].sum() == pytest.approx(1.0)


# ---- without any of them


@pytest.mark.parametrize(
    "module, extra, make",
    [
        ("pymc", "pymc", lambda: PyMCTarget(None)),
        ("numpyro", "numpyro", lambda: NumPyroTarget(print)),
        ("pyro", "pyro", lambda: PyroTarget(print)),
        ("bridgestan", "stan", lambda: StanModel("a.stan")),
    ],
)
def test_a_package_that_is_not_there_is_named(
    module: str, extra: str, make: Callable[[], NamedTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"needs {module}: pip install 'diffsampler\[{extra}\]'"):
        make()
