"""log Z from log importance weights, with a 95 % interval and warnings in words."""

import math
import sys
from dataclasses import asdict, dataclass, field, replace

from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.log_z.difference import LogZDifference, difference
from diffsampler.log_z.weights import WeightSummary

NORMAL_97_5 = 1.959963984540054
KHAT_WARN = 0.5
KHAT_REFUSE = 0.7
EVEN = 0.3  # an effective sample size at which tails that are heavy, but not too heavy, do no harm
UNSEEN_MASS = 0.01  # beyond which searches go on, and what they say is doubtful
NEARLY_EQUAL = 3.0  # times the mean, of the largest weight
FINE_ROUNDING = 1e-3  # nats, which nobody minds

FAILURES = "so far, log_prob was NaN or +inf, or its score was not finite."
MANY_NATS = 1e6  # of which no decimals say anything


def in_nats(value: float, digits: int = 4) -> str:
    """A number with so many decimals, or in powers of ten where it is that large."""
    return f"{value:.{digits}f}" if abs(value) < MANY_NATS else f"{value:.3g}"


@dataclass(frozen=True)
class LogZEstimate:
    """An estimate of log Z, in nats, and what supports it.

    Attributes:
        log_z: the log of the mean importance weight.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval; inf where the weights allow no claim (`khat` above 0.7).
        elbo: a lower bound on log Z in expectation: the mean log-weight; where some weights are zero, that of the
            others plus the log of their share.
        ess: the effective sample size as a fraction of `num_samples`.
        khat: the Pareto shape of the largest weights.
        num_samples: draws of the sampler.
        num_target_evaluations: points at which the target was evaluated so far, training included.
        warnings: what a careful reader should know, a sentence each.
        unseen: of an estimate by several searches, the share of the mass that none of them may have found, by what
            single ones have missed of the rest.
    """

    log_z: float
    low: float
    high: float
    elbo: float
    ess: float
    khat: float
    num_samples: int
    num_target_evaluations: int
    warnings: list[str] = field(default_factory=list)
    unseen: float = 0.0

    def __sub__(self, other: "LogZEstimate") -> LogZDifference:
        """The difference with its interval, for independent estimates: of evidences, a log Bayes factor."""
        if not isinstance(other, LogZEstimate):
            return NotImplemented
        return difference((self.log_z, self.low, self.high), (other.log_z, other.low, other.high))

    @property
    def variance(self) -> float:
        """Of log Z, if the 95 % interval is that of a normal estimate; inf without one."""
        return interval_variance(self.low, self.high)

    def to_dict(self) -> dict[str, float | int | list[str] | None]:
        """The fields for JSON; numbers that JSON has no word for (inf, NaN) become None."""
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(self).items()}


def estimate_log_z(
    log_weight: Tensor | WeightSummary,
    num_target_evaluations: int = 0,
    num_invalid_evaluations: int = 0,
    draws_per_weight: int = 1,
    rounding: float = sys.float_info.epsilon,
) -> LogZEstimate:
    """Estimate log Z from log importance weights.

    The interval is the normal one for the mean weight, taken to the log scale by the delta method. Where the Pareto
    shape exceeds 0.7 that interval means nothing; what remains true of any non-negative unbiased estimate is Markov's
    inequality, P(estimate >= 20 Z) <= 1/20, so the interval is then [log_z - log 20, inf).

    Arguments:
        log_weight: with shape (n). -inf is a weight of zero; NaN and +inf count as zero too, and are reported. Or
            their sums, of weights that came in batches.
        num_target_evaluations: what the weights cost.
        num_invalid_evaluations: at how many of those the target was not a number, or its score was not.
        draws_per_weight: of the sampler, where a weight is the mean of a group of them: `ess` is then that of as many
            independent draws as would tell as much.
        rounding: the relative error of the target's values (`CountedTarget.rounding`). Where it is more than the
            interval's half-width says, that grows by it.

    Raises:
        InputError: if no weight is positive and finite.
    """
    if isinstance(log_weight, WeightSummary):
        summary = log_weight
    else:
        summary = WeightSummary(log_weight.numel()).add(log_weight)
    n, num_zero, num_invalid = summary.num, summary.num_zero, summary.num_invalid
    if num_zero == n:
        raise InputError(
            f"No log Z: of {n} samples, {num_invalid} have a log_prob that is NaN or +inf, and {n - num_invalid} have "
            "density zero. Check the target, or move it to where the sampler starts."
        )
    log_z, ess, khat = summary.log_sum - math.log(n), summary.ess, summary.khat
    standard_error = math.sqrt(summary.relative_variance) if n > 1 else math.inf
    low, high = log_z - NORMAL_97_5 * standard_error, log_z + NORMAL_97_5 * standard_error
    # Weights that are all but equal have no tail to speak of, whatever its shape; but not where few are.
    tail = -math.inf if summary.largest_share * n < NEARLY_EQUAL and not math.isnan(khat) else khat
    if tail > KHAT_REFUSE or not math.isfinite(standard_error):
        low, high = log_z - math.log(20), math.inf
    error, warnings = rounding_warnings(log_z, low, rounding)
    low, high = low - error, high + error
    return LogZEstimate(
        log_z=log_z,
        low=low,
        high=high,
        # log E[w] = log P(w > 0) + log E[w | w > 0], and Jensen's inequality for the second.
        elbo=summary.sum_of_logs / (n - num_zero) + math.log1p(-num_zero / n),
        # Of n m draws with a mean as uncertain as this; m = 1 gives ess back.
        ess=1 / (1 + (n * draws_per_weight - 1) * standard_error**2) if n > 1 else ess,
        khat=khat,
        num_samples=n * draws_per_weight,
        num_target_evaluations=num_target_evaluations,
        warnings=[
            *invalid_warnings(num_invalid_evaluations, num_target_evaluations),
            *warnings,
            *_warnings(n, num_invalid, num_zero - num_invalid, tail, ess, summary.largest_share, draws_per_weight),
        ],
    )


def interval_variance(low: float, high: float) -> float:
    """Of the normal estimate whose 95 % interval this is."""
    return ((high - low) / (2 * NORMAL_97_5)) ** 2


def rounding_warnings(log_z: float, low: float, rounding: float) -> tuple[float, list[str]]:
    """By how much rounding moves a log Z, if that matters beside its interval, and what to say of it; else 0."""
    error = rounding * abs(log_z)
    if error < max(FINE_ROUNDING, 0.5 * (log_z - low)):
        return 0.0, []
    return error, [
        f"Values of log_prob of {log_z:.2g} are rounded to {error:.2g} nats: take the constant off, or have float64 "
        "compute them."
    ]


def invalid_warnings(num_invalid: int, num_evaluations: int) -> list[str]:
    """What to say of evaluations that failed."""
    if not num_invalid:
        return []
    return [f"At {num_invalid:,} of {num_evaluations:,} target evaluations {FAILURES}"]


def warned_of_scores(estimate: LogZEstimate, num_evaluations: int, num_invalid: int) -> LogZEstimate:
    """The same, with a word on how often the density failed whose score a fine-tuned sampler's networks take."""
    if not num_invalid:
        return estimate
    said = f"At {num_invalid:,} of {num_evaluations:,} evaluations of the pretrained density for its score {FAILURES}"
    return replace(estimate, warnings=[said, *estimate.warnings])


def _warnings(
    n: int, num_invalid: int, num_zero: int, khat: float, ess: float, largest: float, draws: int
) -> list[str]:
    units, warnings = "samples" if draws == 1 else f"groups of {draws} samples", []
    if num_invalid:
        warnings.append(f"log_prob is NaN or +inf at {num_invalid} of {n} {units}; they count as density zero.")
    if num_zero:
        warnings.append(f"{num_zero} of {n} {units} have density zero.")
    if math.isnan(khat):
        warnings.append(f"{n} {units} are too few to judge the tail of the weights; draw at least 25.")
    elif khat > KHAT_REFUSE:
        warnings.append(
            f"Pareto khat is {khat:.2f}, above 0.7: the weights are too heavy-tailed for an interval; "
            "log_z is likely too low. Train longer or draw from a better sampler."
        )
    elif khat > KHAT_WARN and ess < EVEN:
        warnings.append(f"Pareto khat is {khat:.2f}, above 0.5: the interval is likely too narrow.")
    if largest > 0.1 and n >= 25:
        warnings.append(f"One of {n} {units} carries {largest:.0%} of the weight (ESS {ess * n:.1f} {units}).")
    return warnings
