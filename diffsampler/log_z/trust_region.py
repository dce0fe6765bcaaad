"""How far weights may be followed at once."""

import math

from torch import Tensor


def divergence_of(log_weight: Tensor, exponent: float) -> float:
    """KL(v | uniform) of v in proportion to w^exponent over log-weights with shape (n), in nats."""
    log_share = (exponent * log_weight).log_softmax(0)
    return float((log_share.exp() * (log_share + math.log(len(log_weight))).nan_to_num(0.0, 0.0, 0.0)).sum())


def exponent_within(log_weight: Tensor, bound: float) -> float:
    """The largest exponent a in [0, 1] for which the law w^a P is at most `bound` nats from P, KL(w^a P | P).

    That is a = 1 / (1 + lambda) for the multiplier lambda of the bound: the nearest that one comes to w P within it.
    The divergence grows with a, so that a is found by bisection.

    References:
        Trust region constrained measure transport in path space for stochastic optimal control and inference, Blessing
            et al., 2025, arXiv:2508.12511.

    Arguments:
        log_weight: of draws of P, with shape (n), at least one of them finite; the others are left out.
        bound: in nats, positive.
    """
    log_weight = log_weight.double().cpu()  # once, and not for every bisection
    log_weight = log_weight[log_weight.isfinite()]
    if divergence_of(log_weight, 1.0) <= bound:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if divergence_of(log_weight, middle) <= bound else (low, middle)
    return low
