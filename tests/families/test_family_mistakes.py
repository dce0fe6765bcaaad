"""What people get wrong about families is said in one sentence, in their own words."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.distributions import Gamma, Independent, Normal, Poisson

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.curves import hypervolume, log_z_curve, non_dominated, thermodynamics
from diffsampler.errors import InputError
from diffsampler.families import Amortised, Coupled, Scalarised, Simulated, Tempered
from targets import Gaussian, Phi4Hopping

ONE = Gaussian(mean=[0.0, 0.0], covariance=1.0)
PRIOR = {"rate": Gamma(3.0, 2.0)}


def counts(p: dict) -> torch.Tensor:
    return torch.poisson(p["rate"][:, None].expand(-1, 4))


def of_mistyped_likelihood() -> object:
    family = Amortised(PRIOR, counts, lambda p, data: Poisson(p["lam"][:, None]).log_prob(data))
    return family.given([1, 2, 0, 3]).log_prob(torch.zeros(5, 1))


MISTAKES = {
    "mistyped coupling": (
        lambda: Coupled(Phi4Hopping, {"kapa": (0.2, 0.3)}, shape=(4, 4)),
        "made of kapa, shape: .*arguments are .*kappa",
    ),
    "mistyped argument": (lambda: Coupled(Phi4Hopping, {"kappa": (0.2, 0.3)}, shap=(4, 4)), "'shap'; its arguments"),
    "two values": (lambda: Coupled(Phi4Hopping, {"kappa": (0.2, 0.3)}, kappa=0.2), "kappa is a context, by ranges"),
    "a target made": (lambda: Coupled(ONE, {"covariance": (1.0, 2.0)}), "a class such as Gaussian"),
    "a family of families": (lambda: Tempered(Tempered(ONE)), "Tempered is a family"),
    "no list": (lambda: Scalarised(ONE, ONE), "targets must be a list of two"),
    "simulate asks for another name": (
        lambda: Amortised(PRIOR, lambda p: counts({"rate": p["rat"]}), lambda p, data: None),
        r"simulate failed for 64 draws at once, with values by name of shape rate \(64,\): KeyError: 'rat'",
    ),
    "simulate gives NaN": (
        lambda: Amortised(PRIOR, lambda p: counts(p) * torch.nan, lambda p, data: None),
        "simulate must return finite data",
    ),
    "simulate gives an array": (
        lambda: Amortised(PRIOR, lambda p: counts(p).numpy(), lambda p, data: None),
        "simulate must return a tensor .* got ndarray. Wrap what it returns in torch.as_tensor",
    ),
    "the likelihood asks for another name": (of_mistyped_likelihood, r"log_likelihood failed.* rate \(5,\).*'lam'"),
    "two contexts": (lambda: Sampler(Tempered(ONE)).given([0.0, 1.0]), r"1 finite number \(log beta\), got"),
    "no context": (lambda: Sampler(Tempered(ONE)).sample(3), r"a context being 1 number \(log beta\)"),
}


@pytest.mark.parametrize(("make", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_arrays_of_numpy_are_taken_for_lists() -> None:
    sampler = Sampler(Tempered(ONE))
    assert log_z_curve(sampler, np.array([0.0, 0.5]), 100).contexts.tolist() == [[0.0], [0.5]]
    assert thermodynamics(sampler, np.array([0.5, 1.0]), 100).beta.tolist() == [0.5, 1.0]
    points = np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]])
    assert hypervolume(points, [0.0, 0.0]) == 3
    assert non_dominated(points).tolist() == [True, True, False]


def test_a_beta_in_the_place_of_its_logarithm_is_told() -> None:
    sampler = Sampler(Tempered(ONE, 0.1, 2.0))
    said = r"beta = 7.389 is outside of 0.1 to 2, .* The context 2 is log beta: if beta = 2 .*, it is math.log\(2\)\.$"
    with pytest.warns(UserWarning, match=said):
        log_z_curve(sampler, [0.0, 2.0], 100)
    with pytest.warns(UserWarning, match=r"beta = 0.006738 is outside of 0.1 to 2, .* The context -5 is log beta\.$"):
        sampler.given(-5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thermodynamics(sampler, [0.1, 1.0, 2.0], 100)


def test_a_figure_joins_contexts_on_one_line_alone() -> None:
    three, two = Sampler(Scalarised([ONE, ONE, ONE])), Sampler(Scalarised([ONE, ONE]))
    corners = log_z_curve(three, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], 100).plot().axes[0]
    edge = log_z_curve(two, [[0, 1], [0.5, 0.5], [1, 0]], 100).plot().axes[0]
    assert [tick.get_text() for tick in corners.get_xticklabels()] == ["1\n0\n0", "0\n1\n0", "0\n0\n1"]
    assert (corners.get_xlabel(), edge.get_xlabel()) == ("preference 1, preference 2, preference 3", "preference 1")


def test_a_figure_of_temperatures_shows_which_are_trusted() -> None:
    found = thermodynamics(Sampler(Tempered(ONE)), [0.5, 1.0], 100)
    legend = {text.get_text() for text in found.plot().legends[0].get_texts()}
    assert legend == set(found.curve.grades)


def test_contexts_that_training_never_sees_are_told() -> None:
    coupled = Sampler(Coupled(Phi4Hopping, {"kappa": (0.2, 0.3)}, shape=(2, 2)))
    simulated = Sampler(Simulated(PRIOR, counts))
    with pytest.warns(UserWarning, match=r"^kappa = 2.5 is outside of 0.2 to 0.3") as caught:
        coupled.given(0.25)
        coupled.given(2.5)
    with pytest.warns(UserWarning, match=r"Number 2 of the data is 1000, far from all of 1024 simulations, 0 to"):
        simulated.given([1, 1000, 2, 0])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for context in (0.2, 0.3):
            coupled.given(context)
        for data in ([0, 0, 0, 0], [1, 2, 3, 4], [6, 7, 5, 4]):
            simulated.given(data)


def test_where_a_density_is_no_number_validations_have_the_other_draws() -> None:
    """Half of the weights are none: before, they took those of their contexts with them, and no draws were left."""

    def log_likelihood(x: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        return Normal(x, 1.0).log_prob(data).sum(-1) + 0 * x[:, 0].sqrt()

    prior = Independent(Normal(torch.zeros(1), 1.0), 1)
    family = Amortised(prior, lambda x: x + torch.randn_like(x), log_likelihood)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*No log Z")
        (found,) = fit(Sampler(family), max_steps=1, num_eval_samples=256, seed=0, enable_progress_bar=False)
    assert math.isfinite(found["elbo"]) and any("NaN" in said for said in found["warnings"])


def total(x: torch.Tensor) -> torch.Tensor:
    return -x.square().sum()


FAMILIES = {
    "tempered": (Tempered, [0.0]),
    "scalarised": (lambda target: Scalarised([target, ONE]), [0.5, 0.5]),
    "coupled": (lambda target: Coupled(lambda width: target, {"width": (1.0, 2.0)}), [1.5]),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_one_number_for_all_points_is_not_spread_over_them(name: str) -> None:
    make, context = FAMILIES[name]
    with pytest.raises(InputError, match=r"one value per point, shape \(3,\) for x of shape \(3, 2\), got \(\)"):
        make(FunctionTarget(total, 2)).given(context).log_prob(torch.zeros(3, 2))


@pytest.mark.parametrize("name", ["tempered", "coupled"])
def test_nor_is_one_score(name: str) -> None:
    class Flat(Gaussian):
        def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.sum(-1), torch.ones(2)

    make, context = FAMILIES[name]
    with pytest.raises(InputError, match=r"Flat\.score must return the shape of x, \(3, 2\), got \(2,\)"):
        make(Flat([0.0, 0.0])).given(context).score(torch.zeros(3, 2))
