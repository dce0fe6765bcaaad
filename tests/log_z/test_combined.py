"""log Z by several sources: no bias from shares that weights themselves decide, intervals that hold."""

import math

import pytest
import torch
from helpers import Z_BOUND, assert_mean
from torch import Tensor

from diffsampler.log_z import estimate_log_z
from diffsampler.log_z.combined import combine


def log_normal(scale: float, n: int, generator: torch.Generator) -> Tensor:
    """Log-weights with a mean weight of 1."""
    return scale * torch.randn(n, generator=generator, dtype=torch.float64) - 0.5 * scale**2


@pytest.mark.parametrize("scales", [(0.5, 0.5, 0.5), (1.0, 0.4, 1.2)], ids=str)
def test_several_sources_have_no_bias_and_intervals_that_hold(scales: tuple[float, ...]) -> None:
    generator, num = torch.Generator().manual_seed(0), 300
    found = [combine([log_normal(scale, 400, generator) for scale in scales]).estimate for _ in range(num)]
    assert_mean(torch.tensor([one.log_z for one in found]).exp(), 1.0, "mean weight")
    held = sum(one.low <= 0 <= one.high for one in found)
    # Binomial, 4.5 standard deviations below 95 %.
    assert held > num * (0.95 - Z_BOUND * math.sqrt(0.95 * 0.05 / num))


def test_equal_sources_tell_as_much_as_all_their_draws() -> None:
    generator = torch.Generator().manual_seed(1)
    groups = [log_normal(0.5, 4000, generator) for _ in range(4)]
    one, all_of_them = estimate_log_z(groups[0]), combine(groups).estimate
    # Half as wide; what four thousand weights say of their variance is known to a few per cent.
    assert 0.4 < (all_of_them.high - all_of_them.low) / (one.high - one.low) < 0.6
    assert all_of_them.num_samples == 16_000


def test_the_draws_that_are_used_have_the_weights_that_the_estimate_is_made_of() -> None:
    generator = torch.Generator().manual_seed(2)
    groups = [log_normal(scale, 1001, generator) for scale in (0.3, 3.0, 0.4)]
    found = combine(groups)
    assert found.shares[1] == 0 and float(found.shares.sum()) == pytest.approx(1.0)
    assert float(found.log_weight.exp().mean().log()) == pytest.approx(found.estimate.log_z)
    of_source = torch.bucketize(found.rows, torch.tensor([1001, 2002]), right=True)
    assert sorted(of_source.unique().tolist()) == [0, 2] and len(found.rows) == 2002
    # Within a source, halves apart, weights are its own times one number.
    odd = found.rows[(of_source == 2) & ((found.rows - 2002) % 2 == 1)]
    ratio = found.log_weight[torch.isin(found.rows, odd)] - groups[2][odd - 2002]
    assert float(ratio.std()) < 1e-12


def test_where_no_source_is_good_enough_its_own_draws_are_left() -> None:
    generator = torch.Generator().manual_seed(3)
    groups = [log_normal(6.0, 500, generator), log_normal(5.0, 500, generator)]
    found, alone = combine(groups, own=0), estimate_log_z(groups[0])
    assert found.shares.tolist() == [1.0, 0.0] and found.estimate.log_z == pytest.approx(alone.log_z)
    assert math.isinf(found.estimate.high)
