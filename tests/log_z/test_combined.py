"""log Z by several sources: no bias, intervals that hold, and none of them needs to reach everywhere."""

import math

import pytest
import torch
from helpers import Z_BOUND, assert_mean
from torch import Tensor

from diffsampler import InputError
from diffsampler.log_z import estimate_log_z
from diffsampler.log_z.combined import Combined, Sources


def log_normal(scale: float, n: int, generator: torch.Generator) -> Tensor:
    """Log-weights with a mean weight of 1."""
    return scale * torch.randn(n, generator=generator, dtype=torch.float64) - 0.5 * scale**2


def of_one_density(scales: tuple[float, ...], n: int, generator: torch.Generator, own: int | None = None) -> Combined:
    """All sources are of the density that is asked for: log R is anything, the same for all."""
    log_weights = [log_normal(scale, n, generator) for scale in scales]
    values = [torch.randn(n, generator=generator, dtype=torch.float64) for _ in scales]
    return Sources(log_weights, [one.unsqueeze(-1).expand(-1, len(scales)) for one in values]).at(values, own)


def gaussians(places: list[list[float]], n: int, generator: torch.Generator, scale: float = 0.3) -> tuple:
    """Noisy weights of exact draws of sums of N(-4, 1) and N(4, 1), each with these masses, and of what is drawn."""
    log_weights, x = [], []
    for low, high in places:
        is_low = torch.rand(n, generator=generator, dtype=torch.float64) < low / (low + high)
        x.append(torch.where(is_low, -4.0, 4.0) + torch.randn(n, generator=generator, dtype=torch.float64))
        log_weights.append(log_normal(scale, n, generator) + math.log(low + high))
    return log_weights, x


def log_sum(x: Tensor, low: float, high: float) -> Tensor:
    parts = torch.stack([-0.5 * (x + 4).square(), -0.5 * (x - 4).square()], -1)
    return (parts + torch.tensor([low, high], dtype=torch.float64).log()).logsumexp(-1) - 0.5 * math.log(2 * math.pi)


def sources_of(places: list[list[float]], n: int, generator: torch.Generator) -> tuple[Sources, list[Tensor]]:
    log_weights, x = gaussians(places, n, generator)
    return Sources(log_weights, [torch.stack([log_sum(one, *place) for place in places], -1) for one in x]), x


@pytest.mark.parametrize("scales", [pytest.param((0.5, 0.5, 0.5), marks=pytest.mark.slow), (1.0, 0.4, 1.2)], ids=str)
def test_several_sources_have_no_bias_and_intervals_that_hold(scales: tuple[float, ...]) -> None:
    generator, num = torch.Generator().manual_seed(0), 150
    found = [of_one_density(scales, 400, generator).estimate for _ in range(num)]
    assert_mean(torch.tensor([one.log_z for one in found]).exp(), 1.0, "mean weight")
    held = sum(one.low <= 0 <= one.high for one in found)
    # Binomial, 4.5 standard deviations below 95 %.
    assert held > num * (0.95 - Z_BOUND * math.sqrt(0.95 * 0.05 / num))


@pytest.mark.parametrize("asked", [pytest.param((1.0, 1.0), marks=pytest.mark.slow), (0.2, 3.0)], ids=str)
def test_sources_that_miss_a_mode_take_nothing_from_those_that_do_not(asked: tuple[float, float]) -> None:
    """The first source never comes to the second mode; its weights look better than those of any other."""
    generator, num = torch.Generator().manual_seed(1), 100
    found = []
    for _ in range(num):
        sources, x = sources_of([[2.0, 0.0], [1.0, 3.0], [0.0, 0.5]], 400, generator)
        found.append(sources.at([log_sum(one, *asked) for one in x]).estimate)
    assert_mean(torch.tensor([one.log_z for one in found]).exp(), sum(asked), "mean weight")
    held = sum(one.low <= math.log(sum(asked)) <= one.high for one in found)
    assert held > num * (0.95 - Z_BOUND * math.sqrt(0.95 * 0.05 / num))
    assert max(one.high - one.low for one in found) < 0.2


def test_weights_do_not_decide_by_how_much_they_count() -> None:
    """Of two halves, each is told by the other: what the first says of one source moves no weight of another in it."""
    log_weights, x = gaussians([[2.0, 0.0], [1.0, 3.0]], 400, torch.Generator().manual_seed(5))
    log_probs = [torch.stack([log_sum(one, 2.0, 0.0), log_sum(one, 1.0, 3.0)], -1) for one in x]
    values, found = [log_sum(one, 1.0, 1.0) for one in x], []
    for factor in (0.0, 1.0):
        moved = log_weights[0] + torch.where(torch.arange(400) % 2 == 0, factor, 0.0)
        one = Sources([moved, log_weights[1]], log_probs).at(values)
        is_even_of_the_other = (one.rows >= 400) & (one.rows % 2 == 0)
        found.append(one.log_weight[is_even_of_the_other])
    assert len(found[0]) == 200
    torch.testing.assert_close(*found)


def test_equal_sources_tell_as_much_as_all_their_draws() -> None:
    generator = torch.Generator().manual_seed(1)
    one = estimate_log_z(log_normal(0.5, 4000, generator))
    all_of_them = of_one_density((0.5,) * 4, 4000, generator).estimate
    # Half as wide; what four thousand weights say of their variance is known to a few per cent.
    assert 0.4 < (all_of_them.high - all_of_them.low) / (one.high - one.low) < 0.6
    assert all_of_them.num_samples == 16_000


def test_the_draws_that_are_used_have_the_weights_that_the_estimate_is_made_of() -> None:
    generator = torch.Generator().manual_seed(2)
    found = of_one_density((0.3, 6.0, 0.4), 1001, generator)
    assert found.shares[1] == 0 and float(found.shares.sum()) == pytest.approx(1.0)
    assert float(found.log_weight.exp().mean().log()) == pytest.approx(found.estimate.log_z)
    of_source = torch.bucketize(found.rows, torch.tensor([1001, 2002]), right=True)
    assert sorted(of_source.unique().tolist()) == [0, 2] and len(found.rows) == len(found.rows.unique()) == 2002


def test_where_no_source_is_good_enough_its_own_draws_are_left() -> None:
    generator = torch.Generator().manual_seed(3)
    found = of_one_density((6.0, 5.0), 500, generator, own=0)
    assert found.shares.tolist() == [pytest.approx(1.0), 0.0]
    assert math.isinf(found.estimate.high)


def test_mass_where_no_source_has_any_is_refused() -> None:
    """x < 0 has none for the one source, whose sampler goes there all the same."""
    x = torch.linspace(-1, 1, 400, dtype=torch.float64)
    log_prob = torch.where(x > 0, 0.0, -math.inf)
    sources = Sources([log_prob], [log_prob.unsqueeze(-1)])
    with pytest.raises(InputError, match="not zero where it is for all that was drawn of"):
        sources.at([torch.zeros_like(x)])


def test_what_is_not_a_number_is_told_from_what_is_zero() -> None:
    generator = torch.Generator().manual_seed(4)
    values = torch.zeros(400, dtype=torch.float64)
    sources = Sources([log_normal(0.3, 400, generator)], [values.unsqueeze(-1)])
    found = sources.at([torch.where(torch.arange(400) < 40, torch.nan, values)]).estimate
    assert found.warnings == ["log_prob is NaN or +inf at 40 of 400 samples; they count as density zero."]
    broken = torch.where(torch.arange(400) < 40, torch.nan, values)
    found = Sources([broken], [broken.unsqueeze(-1)]).at([broken], own=0).estimate
    assert found.warnings == ["log_prob is NaN or +inf at 40 of 400 samples; they count as density zero."]
    # A bound all the same: the mean over the others, and the log of their share.
    assert found.elbo < found.log_z
