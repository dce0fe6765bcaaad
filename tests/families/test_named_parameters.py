"""Posteriors of named parameters for all data: values within their constraints, evidence that is exact."""

import math

import pytest
import torch
from helpers import Z_BOUND
from torch import Tensor
from torch.distributions import Beta, Binomial, Gamma, HalfCauchy, Independent, Normal

from diffsampler import InputError, Sampler, fit
from diffsampler.families import Amortised, Simulated

PRIOR = {"tau": Gamma(3.0, 2.0), "p": Beta(2.0, 3.0)}


def simulate(values: dict[str, Tensor]) -> Tensor:
    """Four numbers of precision tau, and how many of ten trials succeed."""
    y = torch.randn(len(values["tau"]), 4, dtype=torch.float64) * values["tau"].rsqrt()[:, None]
    return torch.cat([y, Binomial(10, values["p"]).sample()[:, None]], -1)


def log_likelihood(values: dict[str, Tensor], data: Tensor) -> Tensor:
    terms = Normal(0.0, values["tau"].rsqrt()[:, None]).log_prob(data[:, :4])
    return torch.cat([terms, Binomial(10, values["p"]).log_prob(data[:, 4])[:, None]], -1)


def log_evidence(data: Tensor) -> float:
    """Gamma and beta priors are conjugate."""
    squares, k, log_gamma = float(data[:4].square().sum()), float(data[4]), math.lgamma
    normal = 3 * math.log(2) - log_gamma(3) - 2 * math.log(2 * math.pi) + log_gamma(5) - 5 * math.log(2 + squares / 2)
    choose = log_gamma(11) - log_gamma(k + 1) - log_gamma(11 - k)
    return normal + choose + log_beta(2 + k, 13 - k) - log_beta(2, 3)


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@pytest.fixture(scope="module")
def fitted() -> Sampler:
    torch.set_default_dtype(torch.float64)
    sampler = Sampler(Amortised(PRIOR, simulate, log_likelihood))
    fit(sampler, max_steps=30, seed=0, num_eval_samples=500, enable_progress_bar=False)
    return sampler


def test_evidence_is_exact_and_draws_have_names(fitted: Sampler) -> None:
    for k, data in enumerate(fitted.family.sample_jointly(3, torch.Generator().manual_seed(7))[1]):
        found = fitted.given(data).posterior(200, seed=k, num_samples=1000)
        error = (found.estimate.high - found.estimate.low) / 3.92
        assert found.estimate.ess > 0.3 and error < 0.05
        assert abs(found.estimate.log_z - log_evidence(data)) < Z_BOUND * error
        assert (found.values["tau"] > 0).all() and ((found.values["p"] > 0) & (found.values["p"] < 1)).all()
        exact = {"tau": 5 / (2 + float(data[:4].square().sum()) / 2), "p": (2 + float(data[4])) / 15}
        for name, row in found.summary().rows.items():
            assert abs(row["mean"] - exact[name]) < Z_BOUND * row["mcse"]


def test_whole_numbers_among_the_data_stay_whole(fitted: Sampler) -> None:
    """States hold contexts in float32 and other units, where a count of 3 is 3.0000001, which has no density."""
    x, data = fitted.family.sample_jointly(50, torch.Generator().manual_seed(1))
    rounded = data.float().mul(1 + 1e-7).double()
    found = fitted.family.log_prob(x, rounded)
    assert found.isfinite().all()
    torch.testing.assert_close(found, fitted.family.log_prob(x, data), rtol=1e-5, atol=1e-4)


def test_from_simulations_alone_values_have_names_too() -> None:
    family = Simulated(PRIOR, simulate)
    x, data = family.sample_jointly(1000, torch.Generator().manual_seed(0))
    values = family.given(data[0]).constrain(x)
    # Beta(2, 3) has mean 0.4 and variance 0.04, Gamma(3, 2) has mean 1.5 and variance 0.75.
    assert abs(float(values["p"].mean()) - 0.4) < Z_BOUND * math.sqrt(0.04 / 1000)
    assert abs(float(values["tau"].mean()) - 1.5) < Z_BOUND * math.sqrt(0.75 / 1000)


def test_dimensions_have_labels() -> None:
    family = Amortised(
        {"mu": Independent(Normal(torch.zeros(2), 1.0), 1), "sigma": HalfCauchy(1.0)},
        lambda p: p["mu"] + p["sigma"][:, None] * torch.randn_like(p["mu"]),
        lambda p, data: Normal(p["mu"], p["sigma"][:, None]).log_prob(data),
        dims={"mu": ["school"]},
        coords={"school": ["a", "b"]},
    )
    member = family.given([0.1, 0.2])
    assert member.coords == {"school": ["a", "b"]}
    assert member.coordinate_names == ["mu[0]", "mu[1]", "the free number of sigma"]


def test_what_cannot_be_such_a_model_is_refused() -> None:
    with pytest.raises(InputError, match="dims and coords are of named parameters"):
        Amortised(Independent(Normal(torch.zeros(2), 1.0), 1), lambda x: x, lambda x, data: x, dims={"x": ["a"]})
    family = Amortised(PRIOR, simulate, lambda p, data: p["tau"].sum())
    with pytest.raises(InputError, match=r"log_likelihood must return a number for each draw, with shape \(B\)"):
        family.given(torch.ones(5)).log_prob(torch.zeros(3, 2))
