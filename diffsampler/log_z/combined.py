"""log Z by weighted draws of several densities, each of use wherever it is dense."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.log_z.estimate import KHAT_REFUSE, NORMAL_97_5, LogZEstimate, estimate_log_z, rounding_warnings
from diffsampler.log_z.verdict import LARGE, NOTICEABLE
from diffsampler.log_z.weights import WeightSummary

FEW = 50  # effective draws of a half, below which a source is left out
SMALLEST_VARIANCE = 0.01  # of a weight, relative: nearly equal ones are not told apart
NOTHING_LEFT = 1e-12  # of a mixture without its largest part, beside rounding


@dataclass(frozen=True)
class Combined:
    """Draws of all sources that are of use, as weighted draws of one density.

    Attributes:
        estimate: of log Z; `num_samples` counts these draws.
        rows: which, of all sources' draws one after the other, with shape (N).
        log_weight: their log-weights, whose mean weight is the estimate of Z, with shape (N).
        shares: of each source in the estimate, with shape (J).
    """

    estimate: LogZEstimate
    rows: Tensor
    log_weight: Tensor
    shares: Tensor


class Counts(NamedTuple):
    """By how much each source counts.

    Attributes:
        log_count: with shape (J); -inf is not at all.
        shares: of each source in the mixture of normalised densities that this is, with shape (J).
        log_mixture: sum_l count_l R_l, the log, at the draws of each source, with shapes (n_k).
    """

    log_count: Tensor
    shares: Tensor
    log_mixture: list[Tensor]


class Stratum(NamedTuple):
    """Weights of some draws of one source, whose mean is added to an estimate."""

    source: int
    log_weight: Tensor
    summary: WeightSummary

    @property
    def log_mean(self) -> float:
        return self.summary.log_sum - math.log(self.summary.num)

    def bound(self, share: float) -> float:
        """The mean log-weight over the source's share of a mixture, a lower bound in the mean."""
        num, num_zero = self.summary.num, self.summary.num_zero
        if num_zero == num:
            return -math.inf
        return self.summary.sum_of_logs / (num - num_zero) + math.log1p(-num_zero / num) - math.log(share)

    @property
    def relative_variance(self) -> float:
        """Of the mean."""
        is_empty = self.summary.num_zero == self.summary.num or self.summary.num == 1
        return 0.0 if is_empty else self.summary.relative_variance


class Sources:
    """Weighted draws of J densities R_k, together as weighted draws of any density that they cover.

    A draw x of the k-th with the weight w, of mean Z_k, has the weight w R(x) / sum_l count_l R_l(x) for a density R;
    sum_k count_k times the means of these is an estimate of its Z, the balance heuristic, unbiased whatever the counts.
    Where one source never comes, others are left to say all: none need reach everywhere by itself, and one that does
    not, however equal its weights, does no harm. Counts of one half of the draws are those that the other half says:
    weights do not decide by how much they count themselves. Sources that miss some of their own density, by what others
    have seen of it, are left out.

    References:
        Optimally combining sampling techniques for Monte Carlo rendering, Veach & Guibas, 1995.
        Statistically optimal analysis of samples from multiple equilibrium states, Shirts & Chodera, 2008,
            arXiv:0801.1426.

    Arguments:
        log_weights: log importance weights of independent draws of each source, with shapes (n_k).
        log_probs: log R_l at the draws of each source, for all l, with shapes (n_k, J).
        rounding: as in `estimate_log_z`.

    Attributes:
        others: log Z of each source by the draws of all others; None where these say nothing.
        blind: which are left out.
    """

    def __init__(self, log_weights: Sequence[Tensor], log_probs: Sequence[Tensor], rounding: float = 0.0) -> None:
        self.log_weights, self.rounding = [one.double() for one in log_weights], rounding
        self.log_probs = [_usable(one.double()) for one in log_probs]
        self.starts = [0, *accumulate(len(one) for one in self.log_weights)]
        self.are_good = [True, True]  # whether any source is, by what each half says
        self.blind: set[int] = set()
        self.counts = [self._counts_by(half) for half in (0, 1)]
        self.others = [self._without(k) for k in range(len(self.log_weights))]
        while (worst := self._worst()) is not None:
            self.blind.add(worst)
            self.counts = [self._counts_by(half) for half in (0, 1)]
            self.others = [self._without(k) for k in range(len(self.log_weights))]

    def at(
        self,
        log_prob: Sequence[Tensor],
        own: int | None = None,
        num_target_evaluations: int = 0,
        num_invalid_evaluations: int = 0,
    ) -> Combined:
        """Those of use for a density R, weighed for it.

        Arguments:
            log_prob: log R at the draws of each source, with shapes (n_k).
            own: the source that is of R itself; it is alone where others are of no use.
            num_target_evaluations, num_invalid_evaluations: as in `estimate_log_z`.

        Raises:
            InputError: if R has mass where no source has any.
        """
        ways = self.counts
        if own is not None and own not in self.blind:
            alone = self._alone(own)
            ways = [[*(some if is_good else []), alone] for some, is_good in zip(ways, self.are_good, strict=True)]
        return self._combined(ways, log_prob, num_target_evaluations, num_invalid_evaluations)

    def _worst(self) -> int | None:
        """The source whose own draws say least of what the others have seen of it; None where none says too little.

        No weight is negative: where an estimate is too low, and sure of itself, its draws miss something.
        """
        missing = {}
        for k, others in enumerate(self.others):
            if k in self.blind or others is None or self.log_weights[k].isneginf().all():
                continue
            own = estimate_log_z(self.log_weights[k])
            lost = others.log_z - own.log_z
            if lost > max(LARGE * math.sqrt(own.variance + others.variance), NOTICEABLE):
                missing[k] = lost
        return max(missing, key=missing.get) if missing else None

    def _without(self, own: int) -> LogZEstimate | None:
        """log Z of a source by the draws of all others; None where these say nothing."""
        log_prob = [rows[:, own] for rows in self.log_probs]
        ways = [[_without(one, own, log_prob) for one in some] for some in self.counts]
        if any(one.log_count.isneginf().all() for some in ways for one in some):
            return None
        try:
            return self._combined(ways, log_prob, 0, 0).estimate
        except InputError:  # where they have no mass, or no weights
            return None

    def _combined(self, ways: Sequence[Sequence[Counts]], log_prob: Sequence[Tensor], *spent: int) -> Combined:
        """By the ways to count that each half tells of the other."""
        rows, strata, bound = [], [], 0.0
        for half in (0, 1):
            told = [one for one in ways[1 - half] if self._covers(one, log_prob)]
            if not told:
                raise InputError(
                    "log_prob is not zero where it is for all that was drawn of: their draws do not tell how much is "
                    "there. Draw at this context too."
                )
            counts = min(told, key=lambda one: _variance(self._strata(one, log_prob, 1 - half)))
            for one in self._strata(counts, log_prob, half):
                rows.append(torch.arange(self.starts[one.source] + half, self.starts[one.source + 1], 2))
                strata.append(one)
                bound += 0.5 * float(counts.shares[one.source]) * one.bound(float(counts.shares[one.source]))
        num = sum(one.summary.num for one in strata)
        # Each stratum is half of a sum of means.
        log_weight = torch.cat([one.log_weight + math.log(0.5 * num / one.summary.num) for one in strata])
        found = estimate_log_z(log_weight, *spent, rounding=self.rounding)
        shares = torch.zeros(len(self.log_weights), dtype=torch.float64)
        for one in strata:
            shares[one.source] += 0.5 * math.exp(one.log_mean - found.log_z)
        rows = torch.cat(rows).to(log_weight.device)
        return Combined(_with_variance(found, _variance(strata), bound, num, self.rounding), rows, log_weight, shares)

    def _strata(self, counts: Counts, log_prob: Sequence[Tensor], half: int) -> list[Stratum]:
        """Weights for the density with these values, of the draws of one half."""
        found = []
        for k in counts.log_count.isfinite().nonzero().flatten().tolist():
            log_weight, mixture = self.log_weights[k][half::2], counts.log_mixture[k][half::2]
            moved = float(counts.log_count[k]) + log_weight + log_prob[k][half::2] - mixture
            moved = torch.where(log_weight.isneginf() | mixture.isneginf(), -math.inf, moved)
            moved = torch.where(log_weight < math.inf, moved, math.nan)  # which is told from zero
            found.append(Stratum(k, moved, WeightSummary(len(moved)).add(moved)))
        return found

    def _covers(self, counts: Counts, log_prob: Sequence[Tensor]) -> bool:
        """Whether no draw has shown mass where the mixture has none."""
        used = counts.log_count.isfinite().nonzero().flatten().tolist()
        return not any((counts.log_mixture[k].isneginf() & (log_prob[k] > -math.inf)).any() for k in used)

    def _counts_by(self, half: int) -> list[Counts]:
        """Two ways to count sources, by what one half of the draws says of them: n_k times a quality, over Z_k.

        By effective sample sizes, which is near the best where sources differ in places, and by inverse variances,
        where they differ in quality.
        """
        summaries = [WeightSummary(len(one[half::2])).add(one[half::2]) for one in self.log_weights]
        ess = [one.ess if one.num_zero < one.num else 0.0 for one in summaries]
        is_seeing = [k not in self.blind for k in range(len(ess))]
        is_good = [
            e * one.num >= FEW and one.khat < KHAT_REFUSE and sees
            for e, one, sees in zip(ess, summaries, is_seeing, strict=True)
        ]
        if not any(is_good):
            self.are_good[half], is_good = False, [e > 0 and sees for e, sees in zip(ess, is_seeing, strict=True)]
        qualities = (lambda e: e, lambda e: 1 / (1 / e - 1 + SMALLEST_VARIANCE))
        return [
            self._counts(
                [
                    math.log(one.num * quality(e)) - one.log_sum + math.log(one.num) if good else -math.inf
                    for one, e, good in zip(summaries, ess, is_good, strict=True)
                ],
                [one.num * quality(e) if good else 0.0 for one, e, good in zip(summaries, ess, is_good, strict=True)],
            )
            for quality in qualities
        ]

    def _alone(self, own: int) -> Counts:
        """One source, as it is."""
        num = len(self.log_weights)
        log_count = [0.0 if k == own else -math.inf for k in range(num)]
        return self._counts(log_count, [float(k == own) for k in range(num)])

    def _counts(self, log_count: Sequence[float], shares: Sequence[float]) -> Counts:
        counts, parts = (torch.tensor(one, dtype=torch.float64) for one in (log_count, shares))
        log_mixture = [(rows + counts.to(rows.device)).logsumexp(-1) for rows in self.log_probs]
        return Counts(counts, parts / parts.sum(), log_mixture)


def _without(counts: Counts, own: int, log_prob: Sequence[Tensor]) -> Counts:
    """Counts of all others; values are those of the density that is left out."""
    log_count, shares = counts.log_count.clone(), counts.shares.clone()
    if log_count[own].isneginf():
        return counts
    part = [
        (float(log_count[own]) + values - mixture).exp()
        for values, mixture in zip(log_prob, counts.log_mixture, strict=True)
    ]
    rest = [torch.where(one < 1 - NOTHING_LEFT, (-one).log1p(), -math.inf) for one in part]
    log_count[own], shares[own] = -math.inf, 0.0
    log_mixture = [mixture + one for mixture, one in zip(counts.log_mixture, rest, strict=True)]
    return Counts(log_count, shares / shares.sum(), log_mixture)


def _usable(log_prob: Tensor) -> Tensor:
    """NaN and +inf are no density."""
    return torch.where(log_prob < math.inf, log_prob, -math.inf)


def _variance(strata: Sequence[Stratum]) -> float:
    """Of a sum of means, relative to its square; inf where it is nothing."""
    log_means = torch.tensor([one.log_mean for one in strata], dtype=torch.float64)
    if not len(strata) or log_means.isneginf().all():
        return math.inf
    variances = torch.tensor([one.relative_variance for one in strata], dtype=torch.float64)
    return float((log_means.softmax(0).square() * variances).sum())


def _with_variance(found: LogZEstimate, variance: float, elbo: float, num: int, rounding: float) -> LogZEstimate:
    """The interval of means of strata, in the place of that of a mean of draws of all."""
    ess = 1 / (1 + (num - 1) * variance)
    if not math.isfinite(found.high):
        return replace(found, ess=ess, elbo=elbo)
    half = NORMAL_97_5 * math.sqrt(variance)
    half += rounding_warnings(found.log_z, found.log_z - half, rounding)[0]
    return replace(found, low=found.log_z - half, high=found.log_z + half, ess=ess, elbo=elbo)
