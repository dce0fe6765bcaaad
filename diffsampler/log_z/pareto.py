"""The Pareto shape of the largest importance weights: how heavy their tail is."""

import math

import torch
from torch import Tensor

MAX_SPAN = 700.0  # nats; exp(-700) is close to the smallest float64.
MIN_EXCESSES = 5
MIN_WEIGHTS = 25


def pareto_khat(log_weight: Tensor) -> float:
    """The shape k of a generalised Pareto distribution fitted to the largest weights.

    Below 0.5 the weights have a finite variance and the central limit theorem holds; above 0.7 no sample size in
    reach makes their mean reliable. NaN with fewer than 25 weights; -inf if the largest are all equal; inf if they span
    more orders of magnitude than float64 holds, or if fewer than 5 stand out.

    References:
        Pareto Smoothed Importance Sampling, Vehtari et al., 2024, arXiv:1507.02646, sections 3 and 6 (tail length,
            weak prior on k).
        A New and Efficient Estimation Method for the Generalized Pareto Distribution, Zhang & Stephens, 2009.

    Arguments:
        log_weight: log importance weights, with shape (n); -inf is a weight of zero.
    """
    n = log_weight.numel()
    return pareto_khat_of_largest(log_weight.double().sort().values[-tail_length(n) - 1 :], n)


def tail_length(n: int) -> int:
    """How many of n weights are the tail that the Pareto distribution is fitted to."""
    return math.ceil(min(0.2 * n, 3 * math.sqrt(n)))


def pareto_khat_of_largest(largest: Tensor, n: int) -> float:
    """The same for n weights of which the largest log-weights, one more than `tail_length(n)`, are given, ascending."""
    if n < MIN_WEIGHTS:
        return math.nan
    positive = largest[largest > -math.inf]
    if len(positive) and positive[-1] - positive[0] > MAX_SPAN:
        return math.inf
    weight = (largest - largest[-1]).exp()
    excess = weight[1:] - weight[0]
    excess = excess[excess > 0]
    if not len(excess):
        return -math.inf
    return _generalised_pareto_shape(excess) if len(excess) >= MIN_EXCESSES else math.inf


def _generalised_pareto_shape(excess: Tensor) -> float:
    """Zhang and Stephens' estimate for sorted positive excesses, shrunk towards 0.5 with the weight of ten
    observations.
    """
    n = excess.numel()
    num_candidates = 30 + math.isqrt(n)
    quartile = excess[max(math.floor(n / 4 + 0.5) - 1, 0)]
    j = torch.arange(1, num_candidates + 1, dtype=torch.float64, device=excess.device)
    theta = 1 / excess[-1] + (1 - (num_candidates / (j - 0.5)).sqrt()) / (3 * quartile)
    k = torch.log1p(-theta[:, None] * excess).mean(1)
    log_likelihood = n * ((-theta / k).log() - k - 1)
    theta = (log_likelihood.softmax(0) * theta).sum()
    k = torch.log1p(-theta * excess).mean()
    return float((n * k + 10 * 0.5) / (n + 10))
