"""What people get wrong about families is said in one sentence, in their own words."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.distributions import Gamma, Poisson

from diffsampler import FunctionTarget, Sampler
from diffsampler.curves import hypervolume, log_z_curve, non_dominated, thermodynamics
from diffsampler.errors import InputError
from diffsampler.families import Amortised, Coupled, Scalarised, Tempered
from targets import Gaussian, Phi4Hopping

ONE = Gaussian(mean=[0.0, 0.0], covariance=1.0)
PRIOR = {"rate": Gamma(3.0, 2.0)}


def counts(p: dict) -> torch.Tensor:
    return torch.poisson(p["rate"][:, None].expand(-1, 4))


def of_mistyped_likelihood() -> object:
    family = Amortised(PRIOR, counts, lambda p, data: Poisson(p["lam"][:, None]).log_prob(data))
    return family.given([1, 2, 0, 3]).log_prob(torch.zeros(5, 1))


MISTAKES = {
    "mistyped coupling": (lambda: Coupled(Phi4Hopping, {"kapa": (0.2, 0.3)}, shape=(4, 4)), "arguments are .*kappa"),
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
    said = r"context 2, which is log beta, that is beta = exp\(2\) = 7.389, is outside of 0.1 to 2, .* math.log\(2\)\.$"
    with pytest.warns(UserWarning, match=said):
        log_z_curve(sampler, [0.0, 2.0], 100)
    with pytest.warns(UserWarning, match=r"context -5, which .* = 0.006738, is outside of 0.1 to 2, where .* on\.$"):
        sampler.given(-5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thermodynamics(sampler, [0.1, 1.0, 2.0], 100)


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
