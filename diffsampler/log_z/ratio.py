"""log of a ratio of two normalising constants, from weights of the same draws."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from diffsampler.log_z.estimate import NORMAL_97_5, LogZEstimate, estimate_log_z


def estimate_ratio(
    log_weight: Tensor,
    log_base: Tensor,
    num_target_evaluations: int = 0,
    num_invalid_evaluations: int = 0,
) -> LogZEstimate:
    """log of the mean of one weight over the mean of another, with an interval that knows that they go together.

    By the delta method: the variance is that of the mean of a / E[a] - b / E[b]. There is none, and the interval is
    the whole line, where the weights of either are too heavy-tailed for one. The ratio is no bound, and has a bias of
    the order of 1 / n.

    Arguments:
        log_weight: log a, with shape (n); what is not finite counts as zero, and is reported.
        log_base: log b of the same draws, with shape (n).
        num_target_evaluations, num_invalid_evaluations: as in `estimate_log_z`.

    Raises:
        InputError: if no weight of either is positive and finite.
    """
    above = estimate_log_z(log_weight, num_target_evaluations, num_invalid_evaluations)
    below = estimate_log_z(log_base)
    log_z, n = above.log_z - below.log_z, above.num_samples
    low, high, ess = -math.inf, math.inf, min(above.ess, below.ess)
    if math.isfinite(above.high) and math.isfinite(below.high):
        weight, base = (n * _usable(log).softmax(0) for log in (log_weight, log_base))
        variance = float((weight - base).square().sum()) / (n * (n - 1))
        half, ess = NORMAL_97_5 * math.sqrt(variance), 1 / (1 + (n - 1) * variance)
        low, high = log_z - half, log_z + half
    khat = max(above.khat, below.khat)
    return replace(above, log_z=log_z, low=low, high=high, elbo=log_z, ess=ess, khat=khat)


def _usable(log_weight: Tensor) -> Tensor:
    return torch.where(log_weight.isfinite(), log_weight.double(), -math.inf)
