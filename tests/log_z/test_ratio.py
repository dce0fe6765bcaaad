"""A ratio of mean weights of the same draws, and what its interval knows."""

import math

import torch

from diffsampler.log_z.ratio import estimate_ratio


def test_intervals_cover_and_know_that_weights_go_together() -> None:
    """a = b exp(0.2 n), with independent normal n and log b: the ratio is exp(0.02).

    The coverage of 1000 intervals has a standard deviation of 0.7 %: 92 to 98 % is 4.3 of them, a false alarm of 2e-5.
    """
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(1000):
        n, m = torch.randn(2, 1000, generator=generator, dtype=torch.float64)
        found = estimate_ratio(0.2 * n + 0.5 * m, 0.5 * m)
        held += found.low <= 0.02 <= found.high
        # Var(a - b) = e^{.25} (e^{.04} - 1), without which independent weights would give e^{.29} + e^{.25} - 2.
        assert 0.5 * (found.high - found.low) < 1.96 * math.sqrt(0.12 / 1000)
    assert 920 < held < 980


def test_heavy_tails_leave_no_interval() -> None:
    heavy = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log() * -1.2
    for pair in ((heavy, torch.zeros(4000)), (torch.zeros(4000), heavy)):
        found = estimate_ratio(*pair)
        assert found.low == -math.inf and found.high == math.inf and found.khat > 0.7
    same = estimate_ratio(torch.zeros(100), torch.full((100,), -2.0))
    assert same.log_z == 2.0 and same.high - same.low < 1e-9 and same.ess == 1.0
