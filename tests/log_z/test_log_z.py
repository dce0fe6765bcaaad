"""The estimate of log Z against numpy, and its interval against repetition."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsampler import InputError
from diffsampler.log_z import LogZEstimate, WeightSummary, estimate_log_z, pareto_khat


def heavy(n: int, shape: float, seed: int = 0) -> Tensor:
    """Log-weights of exact Pareto quantiles: w = p^-shape."""
    return -shape * ((torch.arange(n) + 0.5) / n).log()


@pytest.mark.parametrize("n", [1, 2, 30, 500])
def test_agrees_with_numpy(n: int, generator: torch.Generator) -> None:
    log_weight = 0.4 * torch.randn(n, generator=generator) - 1.3
    estimate = estimate_log_z(log_weight, num_target_evaluations=17)
    w = np.exp(log_weight.numpy())
    assert math.isclose(estimate.log_z, np.log(w.mean()), rel_tol=1e-12)
    assert math.isclose(estimate.elbo, log_weight.numpy().mean(), rel_tol=1e-12)
    assert math.isclose(estimate.ess, w.sum() ** 2 / (w**2).sum() / n, rel_tol=1e-12)
    assert (estimate.num_samples, estimate.num_target_evaluations) == (n, 17)
    if n == 1:
        assert estimate.high == math.inf
    else:
        half = 1.959964 * w.std(ddof=1) / math.sqrt(n) / w.mean()
        assert math.isclose(estimate.high - estimate.log_z, half, rel_tol=1e-6)
        assert math.isclose(estimate.log_z - estimate.low, half, rel_tol=1e-6)


@pytest.mark.parametrize("shift", [-2000.0, 900.0])
def test_shift_moves_nothing_else(shift: float, generator: torch.Generator) -> None:
    log_weight = torch.randn(300, generator=generator)
    first, second = estimate_log_z(log_weight), estimate_log_z(log_weight + shift)
    for name in ("log_z", "low", "high", "elbo"):
        assert abs(getattr(second, name) - getattr(first, name) - shift) < 1e-9, name
    assert abs(second.ess - first.ess) < 1e-9 and abs(second.khat - first.khat) < 1e-9


def test_single_precision_weights_are_summed_in_double(generator: torch.Generator) -> None:
    log_weight = torch.randn(1000, generator=generator).float()
    assert estimate_log_z(log_weight) == estimate_log_z(log_weight.double())


def test_interval_covers_at_the_stated_rate(generator: torch.Generator) -> None:
    # Log-normal weights with sd(log w) = 0.5: Z = exp(1/8). 2000 intervals of n = 400. The true rate lies between 94 %
    # (the skewness of w costs at most 1 % up to sd 1) and 95.5 %; the number covered is binomial with a standard error
    # of 0.0053, and 4.5 of them give a false alarm of 7e-6.
    covered, num_below = 0, 0
    for _ in range(2000):
        estimate = estimate_log_z(0.5 * torch.randn(400, generator=generator))
        covered += estimate.low <= 0.125 <= estimate.high
        num_below += estimate.high < 0.125
    error = math.sqrt(0.94 * 0.06 / 2000)
    assert 0.94 - 4.5 * error < covered / 2000 < 0.955 + 4.5 * error, covered / 2000
    # Misses on both sides: neither end stands at infinity.
    assert 0 < num_below < 2000 - covered


def test_zero_weights_count_and_are_reported(generator: torch.Generator) -> None:
    log_weight = 0.3 * torch.randn(200, generator=generator)
    log_weight[:40] = -math.inf
    estimate = estimate_log_z(log_weight)
    w = log_weight.exp().numpy()
    assert math.isclose(estimate.log_z, np.log(w.mean()), rel_tol=1e-12)
    half = 1.959964 * w.std(ddof=1) / math.sqrt(200) / w.mean()
    assert math.isclose(estimate.high - estimate.log_z, half, rel_tol=1e-6)
    # A bound all the same: the mean of the others, and the log of their share.
    assert math.isclose(estimate.elbo, float(log_weight[40:].mean()) + math.log(0.8), rel_tol=1e-12)
    assert estimate.elbo < estimate.log_z and len(estimate.warnings) == 1
    assert "40 of 200" in estimate.warnings[0] and "density zero" in estimate.warnings[0]


def test_invalid_weights_count_as_zero_and_are_reported(generator: torch.Generator) -> None:
    log_weight = 0.3 * torch.randn(200, generator=generator)
    log_weight[:7], log_weight[7:9], log_weight[9:12] = math.nan, math.inf, -math.inf
    estimate = estimate_log_z(log_weight)
    w = np.r_[np.zeros(12), log_weight[12:].exp().numpy()]
    assert math.isclose(estimate.log_z, np.log(w.mean()), rel_tol=1e-12)
    assert any("NaN or +inf at 9 of 200" in warning for warning in estimate.warnings)
    assert any("3 of 200" in warning and "density zero" in warning for warning in estimate.warnings)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_weights_without_any_use(value: float) -> None:
    with pytest.raises(InputError, match="of 50 samples"):
        estimate_log_z(torch.full((50,), value))
    with pytest.raises(InputError):
        estimate_log_z(torch.empty(0))


def test_healthy_weights_raise_no_warning(generator: torch.Generator) -> None:
    assert estimate_log_z(0.3 * torch.randn(500, generator=generator)).warnings == []
    assert estimate_log_z(torch.zeros(500)).warnings == []


def test_khat_between_its_limits_warns() -> None:
    estimate = estimate_log_z(heavy(4000, 0.6))
    assert 0.5 < estimate.khat < 0.7 and math.isfinite(estimate.high)
    assert any("above 0.5" in warning for warning in estimate.warnings)


def test_khat_above_its_limit_leaves_markov() -> None:
    estimate = estimate_log_z(heavy(4000, 0.9))
    assert estimate.khat > 0.7
    assert estimate.high == math.inf and math.isclose(estimate.low, estimate.log_z - math.log(20))
    assert any("above 0.7" in warning for warning in estimate.warnings)


@pytest.mark.parametrize("spread", [30.0, 300.0, 1000.0, 3000.0, 1e4, 1e6])
def test_hopeless_weights_get_no_interval(spread: float, generator: torch.Generator) -> None:
    """Untrained samplers have sd(log w) of hundreds: most weights underflow next to the largest."""
    for _ in range(10):
        estimate = estimate_log_z(spread * torch.randn(2000, generator=generator))
        assert estimate.high == math.inf, estimate
        assert any("0.7" in warning for warning in estimate.warnings), estimate.warnings


def test_two_scales_of_weights_get_no_interval() -> None:
    # The second largest weight is a denormal number next to the largest.
    log_weight = torch.full((100,), -1e4)
    log_weight[:2] = torch.tensor([0.0, -740.0])
    assert estimate_log_z(log_weight).high == math.inf


def test_few_samples_are_reported() -> None:
    estimate = estimate_log_z(torch.linspace(-0.1, 0.1, 10))
    assert math.isnan(estimate.khat) and any("10 samples are too few" in warning for warning in estimate.warnings)


def test_one_dominant_weight_is_reported() -> None:
    log_weight = torch.zeros(100)
    log_weight[3] = math.log(50.0)
    assert any("One of 100 samples carries 34%" in warning for warning in estimate_log_z(log_weight).warnings)


@pytest.mark.parametrize("log_weight", [[0.0], [0.0, -math.inf, math.nan], [0.0, 0.1, 0.2] * 20])
def test_to_dict_is_strict_json(log_weight: list[float]) -> None:
    estimate = estimate_log_z(torch.tensor(log_weight), 5)
    values = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
    assert list(values) == list(LogZEstimate.__dataclass_fields__)
    for name, value in values.items():
        original = getattr(estimate, name)
        if isinstance(original, float) and not math.isfinite(original):
            assert value is None, name
        else:
            assert value == original, name


@pytest.mark.parametrize(
    ("khat", "spread", "claims", "warns"),
    [(0.49, 2.0, True, False), (0.65, 2.0, True, True), (0.65, 0.5, True, False), (0.75, 2.0, False, True)],
)
def test_khat_decides_what_is_claimed(
    khat: float, spread: float, claims: bool, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffsampler.log_z.weights.pareto_khat_of_largest", lambda largest, n: khat)
    log_weight = spread * torch.randn(2000, generator=torch.Generator().manual_seed(1))
    estimate = estimate_log_z(log_weight)
    assert math.isfinite(estimate.high) == claims and bool(estimate.warnings) == warns


@pytest.mark.parametrize(("largest", "claims"), [(2.9, True), (3.1, False)])
def test_weights_that_are_all_but_equal_have_no_tail(
    largest: float, claims: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffsampler.log_z.weights.pareto_khat_of_largest", lambda weights, n: 0.9)
    weight = torch.full((200,), 1.0)
    weight[7] = largest * 199 / (200 - largest)  # so many times the mean
    estimate = estimate_log_z(weight.log())
    assert math.isfinite(estimate.high) == claims and bool(estimate.warnings) != claims
    assert estimate.khat == 0.9, "the shape itself is reported all the same"


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_weights_in_batches_say_what_all_of_them_say(spread: float, generator: torch.Generator) -> None:
    log_weight = spread * torch.randn(5000, generator=generator) + 700.0
    log_weight[:3] = torch.tensor([math.nan, -math.inf, math.inf])
    at_once, summary = estimate_log_z(log_weight), WeightSummary(5000)
    for part in log_weight.split(37):
        summary.add(part)
    in_batches = estimate_log_z(summary)
    assert in_batches.warnings == at_once.warnings
    for key, value in vars(at_once).items():
        if key != "warnings":
            assert getattr(in_batches, key) == pytest.approx(value, rel=1e-10), key
    assert in_batches.khat == pareto_khat(log_weight.nan_to_num(-math.inf, -math.inf, -math.inf))
    # Only the tail is kept.
    assert len(summary._largest) == math.ceil(3 * math.sqrt(5000)) + 1


def test_memory_does_not_grow_with_the_number_of_weights() -> None:
    summary = WeightSummary(10**9)
    summary.add(torch.zeros(1000))
    assert summary.num == 1000 and summary.ess == pytest.approx(1) and summary.log_sum == pytest.approx(math.log(1000))
    assert summary._num_kept < 10**5
