"""How near the distributions of angles are."""

import math

import torch
from torch import Tensor

from diffsampler.density import or_zero_density
from diffsampler.errors import InputError, check_count

NUM_BINS = 60
PRIOR_COUNT = 0.5


def angle_divergence(
    angles: Tensor, reference: Tensor, log_weight: Tensor | None = None, num_bins: int = NUM_BINS
) -> float:
    """KL(reference | draws) of two sets of angles, in nats, by their histograms on the circle.

    sum_b p_b log(p_b / q_b) over bins of equal width from -pi to pi, where p is the share of the reference and q that
    of the draws. Every bin of q has half a draw more than it holds, so that one that no draw is in counts as 0.5 /
    (n + num_bins / 2), and not as infinitely unlikely. Weighted draws are as many as their effective sample size.

    Sets of the same distribution are not at 0: of n independent draws and far more of the reference the divergence is
    about (occupied bins - 1) / 2n. Chains move slowly: compare with that of one half of the reference from the other.

    References:
        Estimation of probabilities in the multinomial case, Krichevsky & Trofimov, 1981 (half a count).

    Arguments:
        angles: of draws, in radians, with shape (n), in any turn.
        reference: of draws of the target, with shape (m).
        log_weight: log importance weights of the draws, with shape (n); what is not finite counts as zero.
        num_bins: on the circle.

    Raises:
        InputError: if shapes do not fit, an angle is not finite, or no weight is positive.
    """
    num_bins = check_count("num_bins", num_bins)
    for name, one in (("angles", angles), ("reference", reference)):
        if one.ndim != 1 or not len(one) or not one.isfinite().all():
            raise InputError(f"{name} must be finite angles with shape (n), got shape {tuple(one.shape)}.")
    log_weight = angles.new_zeros(len(angles)) if log_weight is None else log_weight
    if log_weight.shape != angles.shape:
        raise InputError(f"log_weight must have shape {tuple(angles.shape)}, got {tuple(log_weight.shape)}.")
    log_weight = or_zero_density(log_weight.double())
    if log_weight.isneginf().all():
        raise InputError(f"none of {len(angles)} draws has a usable weight.")
    weight = log_weight.softmax(0).cpu()
    counts = _histogram(angles, weight / weight.square().sum(), num_bins) + PRIOR_COUNT
    p = _histogram(
        reference, torch.full((len(reference),), 1 / len(reference), dtype=torch.float64, device="cpu"), num_bins
    )
    return float(torch.xlogy(p, p / (counts / counts.sum())).sum())


def _histogram(angles: Tensor, weight: Tensor, num_bins: int) -> Tensor:
    turns = torch.remainder(angles.double().cpu() / (2 * math.pi) + 0.5, 1)
    bins = (turns * num_bins).long().clamp(max=num_bins - 1)
    return weight.new_zeros(num_bins).index_add(0, bins, weight)
