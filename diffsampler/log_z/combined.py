"""log Z by weighted draws of several sources, of which none is its own alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffsampler.log_z.estimate import KHAT_WARN, NORMAL_97_5, LogZEstimate, estimate_log_z
from diffsampler.log_z.weights import WeightSummary

FEW = 50  # effective draws of a half, below which its variance is not known well enough
SMALLEST_VARIANCE = 1e-4  # of a weight, relative: nearly equal ones are not told apart
NEGLIGIBLE = 0.05  # of the largest share


@dataclass(frozen=True)
class Combined:
    """Draws of all sources that are of use, as weighted draws of one density.

    Attributes:
        estimate: of log Z; `num_samples` counts these draws.
        rows: which, of all sources' draws one after the other, with shape (N).
        log_weight: their log-weights, whose mean weight is the estimate of Z, with shape (N).
        shares: of each source, with shape (J).
    """

    estimate: LogZEstimate
    rows: Tensor
    log_weight: Tensor
    shares: Tensor


def combine(
    groups: Sequence[Tensor], own: int | None = None, num_target_evaluations: int = 0, num_invalid_evaluations: int = 0
) -> Combined:
    """The mean of several estimates of one Z, each the mean of independent weights, by their inverse variances.

    A share that is estimated from the same weights as the mean that it multiplies would make that mean too small, as
    small weights vary least. Shares of one half of the draws are therefore those that the other half says: the
    estimate is unbiased whatever the weights, and its variance is that of means of strata.

    Arguments:
        groups: log importance weights of independent draws of each source, two at least, with shapes (n_j): each with
            a mean weight of Z.
        own: the source to be left with where no weights are good enough; by default that of the largest sample.
        num_target_evaluations, num_invalid_evaluations: as in `estimate_log_z`.
    """
    groups = [torch.where(group < math.inf, group.double(), -math.inf) for group in groups]
    halves = [[group[half::2] for group in groups] for half in (0, 1)]
    shares = [_shares(halves[1 - half], own) for half in (0, 1)]
    offsets = [0, *torch.tensor([len(group) for group in groups]).cumsum(0).tolist()]
    rows, parts, bounds, strata = [], [], 0.0, []
    for half, share in enumerate(shares):
        for j in share.nonzero().flatten().tolist():
            log_weight, scale = halves[half][j], 0.5 * float(share[j])
            rows.append(torch.arange(offsets[j] + half, offsets[j + 1], 2, device=log_weight.device))
            parts.append(log_weight + math.log(scale / len(log_weight)))
            summary = WeightSummary(len(log_weight)).add(log_weight)
            strata.append((scale, summary))
            bounds += scale * summary.sum_of_logs / max(summary.num - summary.num_zero, 1)
    log_weight = torch.cat(parts)
    log_weight = log_weight + math.log(len(log_weight))
    found = estimate_log_z(log_weight, num_target_evaluations, num_invalid_evaluations)
    variance = sum((scale * _error(summary, found.log_z)) ** 2 for scale, summary in strata)
    return Combined(
        _with_variance(found, variance, bounds, len(log_weight)), torch.cat(rows), log_weight, 0.5 * sum(shares)
    )


def _shares(groups: Sequence[Tensor], own: int | None) -> Tensor:
    """Of each source, with shape (J), by its weights."""
    summaries = [WeightSummary(len(group)).add(group) for group in groups]
    ess = [summary.ess if summary.num_zero < summary.num else 0.0 for summary in summaries]
    precision = torch.tensor(
        [
            0.0 if share * one.num < FEW or not one.khat < KHAT_WARN else one.num / (1 / share - 1 + SMALLEST_VARIANCE)
            for one, share in zip(summaries, ess, strict=True)
        ],
        dtype=torch.float64,
    )
    if not precision.any():
        best = max(range(len(groups)), key=lambda j: ess[j] * summaries[j].num) if own is None else own
        precision[best] = 1.0
    precision = torch.where(precision < NEGLIGIBLE * precision.max(), 0.0, precision)
    return precision / precision.sum()


def _error(summary: WeightSummary, log_z: float) -> float:
    """The standard error of the mean weight of a stratum, in units of Z."""
    if summary.num_zero == summary.num:
        return 0.0
    mean = math.exp(summary.log_sum - math.log(summary.num) - log_z)
    return mean * math.sqrt(max(1 / summary.ess - 1, 0.0) / (summary.num - 1))


def _with_variance(found: LogZEstimate, variance: float, elbo: float, num: int) -> LogZEstimate:
    """The interval of means of strata, in the place of that of a mean of draws of all."""
    ess = 1 / (1 + (num - 1) * variance)
    if not math.isfinite(found.high):
        return replace(found, ess=ess, elbo=elbo)
    half = NORMAL_97_5 * math.sqrt(variance)
    return replace(found, low=found.log_z - half, high=found.log_z + half, ess=ess, elbo=elbo)
