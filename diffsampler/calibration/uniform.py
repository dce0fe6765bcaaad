"""Whether ranks are uniform: bands for their distribution function that hold at all points at once."""

from functools import lru_cache

import numpy as np

NUM_SIMULATED = 20_000


def p_value(ranks: np.ndarray, num_draws: int) -> float:
    """The chance that uniform ranks lie as far outside at some point as these do.

    References:
        Graphical test for discrete uniformity and its applications in goodness-of-fit evaluation and multiple sample
        comparison, Säilynoja, Bürkner & Vehtari, 2022, arXiv:2103.10522, section 2.2.

    Arguments:
        ranks: with shape (n), each from 0 to `num_draws`.
        num_draws: of the posterior, among which ranks were taken.
    """
    found = float(_extremity(np.bincount(ranks, minlength=num_draws + 1)[None], len(ranks))[0])
    simulated = _simulated(len(ranks), num_draws)
    p = float(1 + (simulated <= found * (1 + 1e-9)).sum()) / (1 + len(simulated))
    # Beyond what is simulated, the union bound over all points.
    return min(p, num_draws * found)


def band(n: int, num_draws: int, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the distribution function of n uniform ranks lies at all points at once, with probability `level`.

    Returns:
        The points, shares of all ranks, and the lower and upper ends there, each with shape (num_draws).
    """
    from scipy.stats import binom

    tail = float(np.quantile(_simulated(n, num_draws), 1 - level)) / 2
    points = _points(num_draws)
    return points, binom.ppf(tail, n, points) / n, binom.ppf(1 - tail, n, points) / n


def _points(num_draws: int) -> np.ndarray:
    return np.arange(1, num_draws + 1) / (num_draws + 1)


@lru_cache(maxsize=8)
def _simulated(n: int, num_draws: int) -> np.ndarray:
    """How extreme n uniform ranks are, many times."""
    generator = np.random.default_rng(0)
    chance = np.full(num_draws + 1, 1 / (num_draws + 1))
    return np.concatenate([_extremity(generator.multinomial(n, chance, 2000), n) for _ in range(NUM_SIMULATED // 2000)])


def _extremity(counts: np.ndarray, n: int) -> np.ndarray:
    """The least two-sided tail probability over all points, with shape (m), of counts of each rank, with shape (m, L).

    Below a point there are as many ranks as a binomial distribution has it.
    """
    from scipy.stats import binom

    points, below = _points(counts.shape[1] - 1), counts.cumsum(-1)[:, :-1]
    at = np.arange(n + 1)[:, None]
    least = np.minimum(binom.cdf(at, n, points), binom.sf(at - 1, n, points))
    return 2 * np.take_along_axis(least, below, 0).min(-1)
