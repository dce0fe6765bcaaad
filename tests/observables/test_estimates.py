"""Weighted means and functions of them: by hand, in closed form, and how often intervals hold the truth."""

import json
import math

import pytest
import torch
from helpers import Z_BOUND, assert_mean
from torch import Tensor

from diffsampler import InputError
from diffsampler.observables import (
    Angles,
    HeatCapacity,
    Histogram,
    Observable,
    Susceptibility,
    Variance,
    estimate_observable,
)


def test_three_draws_by_hand() -> None:
    x, log_weight = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([1.0, 2.0, 1.0]).log() + 50
    found = estimate_observable("x", lambda x: x[:, 0], x, log_weight, exact=1.0)
    # (0 + 2 + 3) / 4, and (1 * 1.25^2 + 4 * 0.25^2 + 1 * 1.75^2) / 16.
    assert float(found.value) == pytest.approx(1.25) and found.value.shape == ()
    assert float(found.standard_error) == pytest.approx(math.sqrt(4.875 / 16))
    # (25 + 4 + 49)^2 / (25^2 + 4^2 + 49^2) = 2 draws make the error: the quantile of Student's t with so many.
    assert float(found.freedom) == pytest.approx(2.0)
    assert float(found.half_width / found.standard_error) == pytest.approx(4.302653, rel=1e-6)
    assert float(found.error) == pytest.approx(0.25)
    assert float(found.z_score) == pytest.approx(0.25 / math.sqrt(4.875 / 16))
    both = estimate_observable("both", lambda x: torch.cat([x, 2 - x], -1), x, log_weight)
    torch.testing.assert_close(both.value, torch.tensor([1.25, 0.75]))
    torch.testing.assert_close(both.standard_error, found.standard_error.repeat(2))


def test_equal_weights_give_the_error_of_a_plain_mean(generator: torch.Generator) -> None:
    x = torch.randn(50, 1, generator=generator)
    found = estimate_observable("x", lambda x: x, x)
    assert found.value.shape == (1,) and float(found.value) == pytest.approx(float(x.mean()))
    assert float(found.standard_error) == pytest.approx(float(x.std(correction=0)) / math.sqrt(50))


def test_draws_of_weight_zero_are_not_asked(generator: torch.Generator) -> None:
    x = torch.tensor([[-1.0], [1.0], [4.0], [9.0], [2.0]])
    log_weight = torch.tensor([-math.inf, 0.0, 0.0, math.nan, -2000.0])
    found = estimate_observable("root", lambda x: torch.where(x < 3, x.sqrt(), 2)[:, 0], x, log_weight)
    assert float(found.value) == pytest.approx(1.5)


def tilted(n: int, generator: torch.Generator, scale: float = 1.5) -> tuple[Tensor, Tensor]:
    """n draws of N(0, scale^2), with their log-weights for N(0, 1)."""
    x = scale * torch.randn(n, 1, generator=generator)
    return x, -0.5 * x[:, 0].square() + 0.5 * (x[:, 0] / scale).square()


def test_the_error_of_a_mean_is_that_of_the_delta_method(generator: torch.Generator) -> None:
    # n Var = E_q[w^2 x^2] with w = p / q: for p = N(0, 1), q = N(0, s^2) that is s (2 - 1 / s^2)^(-3/2).
    n, s = 100_000, 1.5
    x, log_weight = tilted(n, generator, s)
    found = estimate_observable("x", lambda x: x[:, 0], x, log_weight, 0.0)
    squares = s**2 * (2 * log_weight).exp() * x[:, 0].square()
    assert_mean(squares, s * (2 - 1 / s**2) ** -1.5, "n Var")
    # The same sum over another Z, which the n draws know to 0.2 %.
    assert float(found.standard_error**2) * n == pytest.approx(float(squares.mean()), rel=0.02)
    assert abs(float(found.z_score)) < Z_BOUND


class Ratio(Observable):
    """E[x^2] / E[x^4], of which N(0, 1) has 1/3."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([x**2, x**4], -1)

    def of_means(self, means: Tensor) -> Tensor:
        return means[0] / means[1]


def energy(x: Tensor) -> Tensor:
    return 0.5 * x.square().sum(-1)


@pytest.mark.parametrize(
    ("observable", "exact"),
    [
        (lambda x: x[:, 0].abs(), math.sqrt(2 / math.pi)),
        (Variance(lambda x: x[:, 0]), 1.0),
        (HeatCapacity(energy, 3.0), 4.5),  # beta^2 Var(x^2 / 2) = 9 / 2
        (Susceptibility(lambda x: x[:, 0], 10), 10 * (1 - 2 / math.pi)),
        (Ratio(), 1 / 3),
    ],
    ids=["mean", "variance", "heat capacity", "susceptibility", "ratio"],
)
def test_95_of_100_intervals_hold_the_truth(observable: Observable, exact: float, generator: torch.Generator) -> None:
    # Binomial, 400 sets: a share of 0.95 +- 0.0109. By 4.5 of these on either side a false alarm has a chance below
    # 1e-5; skewness of a variance's estimate at n = 2000 takes less than one more per cent.
    repeats, n = 400, 2000
    held = 0
    for _ in range(repeats):
        x, log_weight = tilted(n, generator)
        found = estimate_observable("f", observable, x, log_weight, exact)
        held += abs(float(found.z_score)) < 1.96
    assert abs(held / repeats - 0.95) < 4.5 * math.sqrt(0.95 * 0.05 / repeats) + 0.01, held / repeats


def test_nine_of_ten_intervals_of_few_skewed_draws_hold_the_variance(generator: torch.Generator) -> None:
    # Of exponential energies: by 1.96 standard errors 0.84 to 0.87 over seeds, by Student's t 0.905 to 0.922. Binomial,
    # 1000 sets: 0.914 less 4.4 times 0.0089, with a false alarm of 1e-5.
    repeats, held = 1000, 0
    for _ in range(repeats):
        x = -torch.rand(100, 1, generator=generator).log()
        found = estimate_observable("v", Variance(lambda x: x[:, 0]), x, exact=1.0)
        held += abs(float(found.error)) < float(found.half_width)
    assert held / repeats > 0.875


def test_a_constant_changes_no_variance(generator: torch.Generator) -> None:
    x = torch.randn(1000, 1, generator=generator)
    plain, shifted = (estimate_observable("v", Variance(lambda x, c=c: x + c), x) for c in (0.0, 1e8))
    assert float(shifted.value) == pytest.approx(float(plain.value), rel=1e-6)
    assert float(shifted.standard_error) == pytest.approx(float(plain.standard_error), rel=1e-6)
    # Var of s^2 = (mu_4 - sigma^4) / n, to leading order.
    centred = x - x.mean()
    expected = math.sqrt(float(centred.pow(4).mean() - centred.square().mean() ** 2) / 1000)
    assert float(plain.standard_error) == pytest.approx(expected)


def test_a_histogram_by_hand() -> None:
    x = torch.tensor([[0.0, 0.5, 2.0, 5.0], [1.0, 1.0, 1.5, -1.0]])
    found = estimate_observable("h", Histogram(lambda x: x, 0.0, 2.0, num_bins=2), x, torch.tensor([3.0, 1.0]).log())
    # Shares of numbers in [0, 1) and [1, 2]: (2, 1) and (0, 3) of 4; bins are 1 wide.
    torch.testing.assert_close(found.value, torch.tensor([0.75 * 0.5, 0.75 * 0.25 + 0.25 * 0.75]))
    torch.testing.assert_close(found.edges, torch.tensor([0.0, 1.0, 2.0]))
    assert found.to_dict()["edges"] == [0.0, 1.0, 2.0]


def test_bins_follow_draws_that_weigh(generator: torch.Generator) -> None:
    x = torch.cat([torch.rand(2000, 1, generator=generator), torch.tensor([[1e6]])])
    log_weight = torch.cat([torch.zeros(2000), torch.tensor([-8.0])])
    found = estimate_observable("h", Histogram(lambda x: x, num_bins=10), x, log_weight)
    assert found.edges[0] < 0.02 and 0.98 < found.edges[-1] <= 1
    assert float(found.value.sum() * 0.1) == pytest.approx(1, abs=0.02)
    with pytest.raises(InputError, match="known once low and high are given"):
        _ = Histogram(lambda x: x).edges


def test_the_mean_direction_of_angles_across_the_cut(generator: torch.Generator) -> None:
    x = torch.pi + 0.3 + 0.1 * torch.randn(4000, 2, generator=generator)
    found = estimate_observable("a", Angles(lambda x: x), x, exact=[0.3 - torch.pi, 0.3 - torch.pi])
    assert (found.z_score.abs() < Z_BOUND).all()
    # Of narrow angles, that of their mean: 0.1 / sqrt(n), to the square of 0.1.
    torch.testing.assert_close(found.standard_error, torch.full((2,), 0.1 / math.sqrt(4000)), rtol=0.05, atol=0)


NAN = torch.tensor([[0.0, math.nan], [1.0, 2.0], [3.0, 1.0]])


@pytest.mark.parametrize(
    "observable", [lambda x: x, Variance(lambda x: x), Histogram(lambda x: x, 0, 5), Angles(lambda x: x)]
)
def test_what_is_no_number_is_refused_by_name(observable: Observable) -> None:
    with pytest.raises(InputError, match="'mine' is NaN or infinite at 1 of 3 draws"):
        estimate_observable("mine", observable, NAN)


@pytest.mark.parametrize(
    ("observable", "message"),
    [
        (lambda x: x.sum(), r"shape \(3,\) or \(3, k\), got \(\)"),
        (lambda x: x[:2], r"got \(2, 2\)"),
        (lambda x: x[..., None], r"got \(3, 2, 1\)"),
        (lambda x: 1.0, "must return a tensor, got float"),
        (Variance(lambda x: x.sum()), r"shape \(3,\) or \(3, k\), got \(\)"),
    ],
)
def test_what_is_no_function_of_draws_is_refused_by_name(observable: Observable, message: str) -> None:
    with pytest.raises(InputError, match=f"'mine'.*{message}"):
        estimate_observable("mine", observable, torch.zeros(3, 2))


def test_other_mistakes_are_named() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(InputError, match="'m' must be a function of x, got 3"):
        estimate_observable("m", 3, x)
    with pytest.raises(InputError, match="'m' has no mean: none of 3 draws has a usable density"):
        estimate_observable("m", lambda x: x, x, torch.full((3,), -math.inf))
    with pytest.raises(InputError, match=r"exact value of observable 'm' must have shape \(2,\), got \(\)"):
        estimate_observable("m", lambda x: x, x, exact=1.0)
    with pytest.raises(InputError, match="one of each of 3 draws, got 2"):
        estimate_observable("m", lambda x: x, x, torch.zeros(2))
    with pytest.raises(InputError, match="low must be below high"):
        Histogram(lambda x: x, 2.0, 1.0)
    with pytest.raises(InputError, match="inverse_temperature must be positive"):
        HeatCapacity(energy, 0.0)


def test_what_goes_into_a_file() -> None:
    found = estimate_observable("m", lambda x: x, torch.ones(3, 2), exact=[1.0, 2.0])
    parts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert parts["value"] == [1.0, 1.0] and parts["standard_error"] == [0.0, 0.0] and parts["error"] == [0.0, -1.0]
    assert parts["z_score"] == [0.0, None]  # an error where none is possible has no finite score
