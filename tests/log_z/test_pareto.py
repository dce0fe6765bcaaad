"""The Pareto shape against ArviZ and against exact Pareto draws."""

import math

import pytest
import torch
from torch import Tensor

from diffsampler.log_z import pareto_khat


def pareto(n: int, shape: float, generator: torch.Generator) -> Tensor:
    """Log-weights w = U^-shape, whose tail is generalised Pareto with that shape at any threshold."""
    return -shape * torch.rand(n, generator=generator).log()


# Sizes at which ArviZ's tail length, rounded down, equals ours, rounded up.
@pytest.mark.parametrize("n", [25, 100, 225, 400, 2500, 10_000])
@pytest.mark.parametrize("kind", ["normal", "wide", "pareto-0.3", "pareto-0.9", "bounded"])
def test_agrees_with_arviz(kind: str, n: int, generator: torch.Generator) -> None:
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    if not hasattr(array_stats, "psislw"):
        pytest.skip("an ArviZ without psislw, as the last one for Python 3.10")
    log_weight = {
        "normal": lambda: torch.randn(n, generator=generator),
        "wide": lambda: 5 * torch.randn(n, generator=generator) - 700,
        "pareto-0.3": lambda: pareto(n, 0.3, generator),
        "pareto-0.9": lambda: pareto(n, 0.9, generator),
        "bounded": lambda: torch.rand(n, generator=generator).log(),
    }[kind]()
    # ArviZ takes minus log-weights; it drops candidates of relative weight below 2e-15, hence the tolerance.
    expected = float(array_stats.psislw(-log_weight.numpy())[1])
    assert abs(pareto_khat(log_weight) - expected) < 1e-8, kind


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.7, 1.2])
def test_recovers_exact_pareto_shapes(shape: float, generator: torch.Generator) -> None:
    # n = 40000: a tail of m = 600. The maximum-likelihood shape has the standard error (1 + k) / m^1/2, and the prior
    # (ten observations at 0.5) moves it by at most |0.5 - k| 10 / 610. 4.5 standard errors give a false alarm of 7e-6.
    khat = pareto_khat(pareto(40_000, shape, generator))
    assert abs(khat - shape) < 4.5 * (1 + shape) / math.sqrt(600) + abs(0.5 - shape) * 10 / 610, khat


def test_ignores_order_shift_and_precision(generator: torch.Generator) -> None:
    log_weight = torch.randn(500, generator=generator)
    khat = pareto_khat(log_weight)
    assert pareto_khat(log_weight[torch.randperm(500, generator=generator)]) == khat
    assert abs(pareto_khat(log_weight + 1000) - khat) < 1e-9
    assert abs(pareto_khat(log_weight.float()) - khat) < 1e-4


def test_zero_weights_leave_the_tail(generator: torch.Generator) -> None:
    # 400 weights have a tail of 60; the same weights among 900 have one of 90.
    log_weight = torch.randn(400, generator=generator)
    zeros = torch.full((500,), -math.inf)
    assert math.isfinite(pareto_khat(torch.cat([zeros, log_weight])))


def test_has_no_answer_for_few_or_equal_weights() -> None:
    assert math.isnan(pareto_khat(torch.linspace(0, 1, 24)))
    assert math.isfinite(pareto_khat(torch.linspace(0, 1, 25)))
    assert pareto_khat(torch.full((100,), 3.0)) == -math.inf
