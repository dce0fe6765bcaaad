"""Whether an estimate of log Z can be trusted, in words: three grades, and the reasons."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.log_z.estimate import (
    EVEN,
    KHAT_REFUSE,
    KHAT_WARN,
    UNSEEN_MASS,
    LogZEstimate,
    estimate_log_z,
    in_nats,
    interval_variance,
)
from diffsampler.log_z.resampling import systematic
from diffsampler.log_z.weights import NUM_LARGEST, share_of_heavy

GRADES = ("trustworthy", "doubtful", "not to be trusted")
FEW, TOO_FEW = 100, 20  # effective samples
MODERATE, LARGE = 2.6, 4.0  # standard errors between two estimates
NOTICEABLE, TOLERABLE = 0.05, 0.1  # nats
MANY_ENOUGH = 25  # weights for a Pareto shape: with more and none, the estimate is one of SMC
WIDE_GAP = 3.0  # nats between log Z and ELBO: of log-normal weights with an effective sample size of 0.2 %
NUM_BINS = 20
UNDERREPRESENTED = 0.1
FAR = 3.0
UNSEEN = 0.01
MANY_HEAVIER = 0.3  # of log-normal weights that are good for anything, a tenth at most

TRAIN = "Train longer: fit(sampler, max_steps=10_000), or --trainer.max_steps=10000."
DRAW = "Draw more: estimate_log_z(num_samples=100_000), or --data.num_test_samples=100000."
COMPARE = "Compare: assess(sampler, reference=reference(target)), or --report.reference=true."
SEARCH = (
    "Search again: fit a new Sampler with another seed (--seed_everything=...), or reference(target, "
    "num_particles=20_000). Where modes, edges or scales are known, say so: scale and centre x, declare "
    "Target.support, give exact draws as Target.sample."
)
REPARAMETRISE = (
    "Reparametrise: logarithms of scales, non-centred effects, target.support for edges; or another recipe, such as "
    "process=AnnealedLangevin with loss=LogVariance()."
)


@dataclass(frozen=True)
class Verdict:
    """A grade, one of `GRADES`, and what led to it.

    Attributes:
        grade: one of `GRADES`.
        reasons: a sentence each; what supports the estimate comes last.
        next_steps: what to do about a grade below the first, a sentence each.
    """

    grade: str
    reasons: list[str]
    next_steps: list[str] = field(default_factory=list)

    @property
    def training_may_help(self) -> bool:
        """Whether anything that speaks against the estimate is more than what its searches have missed."""
        return any(step not in (SEARCH, REPARAMETRISE) for step in self.next_steps)

    def with_doubt(self, reason: str, next_step: str) -> "Verdict":
        """The same, doubtful at best, for one more reason."""
        grade = GRADES[max(1, GRADES.index(self.grade))]
        return Verdict(grade, [reason, *self.reasons], [*dict.fromkeys([next_step, *self.next_steps])])


# How bad it is, an index of `GRADES`, what it is, and what to do.
Finding = tuple[int, str, str]


def judge(
    estimate: LogZEstimate,
    reference: LogZEstimate | None = None,
    x: Tensor | None = None,
    log_weight: Tensor | None = None,
    reference_x: Tensor | None = None,
    history: Sequence[dict[str, Any]] = (),
    rolled_back: Tensor | None = None,
    draws_are_exact: bool = False,
    compare: str = COMPARE,
    apart: str | None = None,
) -> Verdict:
    """Judge an estimate by its weights, by an independent one, by the places that both have seen, and by its history.

    Arguments:
        estimate: from importance weights.
        reference: an estimate that does not share the sampler's draws, such as that of `reference`.
        x: the sampler's draws, with shape (n, D).
        log_weight: their log importance weights, with shape (n).
        reference_x: draws of the target that the reference has found, with shape (m, D).
        history: evaluations during training, oldest first: dictionaries with `log_z`, `low` and `high`.
        rolled_back: log-weights of trajectories rolled back from draws of the target, with shape (m), as by
            `diffsampler.paths.rolled_back_log_weight`.
        draws_are_exact: whether those draws are the target's own: then they are an independent estimate.
        compare: the next step where no independent estimate is given.
        apart: that where one is given and differs; by default to search again, or to train.
    """
    if log_weight is not None:
        log_weight = torch.where(log_weight.isfinite(), log_weight.double(), -math.inf)
    is_of_exact_draws = reference is None and draws_are_exact and rolled_back is not None
    if is_of_exact_draws:
        reference = _from_exact_draws(rolled_back)
    findings = [*_weights(estimate), *_agreement(estimate, reference, is_of_exact_draws, compare, apart)]
    findings += _history(history)
    if x is not None and log_weight is not None and reference_x is not None:
        findings += _places(x, log_weight, reference_x, compare)
    if log_weight is not None and rolled_back is not None:
        findings += _rolled_back(estimate, log_weight, rolled_back)
    findings.sort(key=lambda finding: -finding[0])
    levels, reasons, steps = zip(*findings, strict=True)
    next_steps = dict.fromkeys(step for level, step in zip(levels, steps, strict=True) if level)
    return Verdict(GRADES[levels[0]], list(reasons), list(next_steps))


def _from_exact_draws(rolled_back: Tensor) -> LogZEstimate | None:
    """E_target[1 / w] = 1 / Z: an estimate that errs to the other side where the sampler misses something."""
    usable = rolled_back[rolled_back.isfinite()]
    if len(usable) < MANY_ENOUGH:
        return None
    inverse = estimate_log_z(-usable)
    return replace(inverse, log_z=-inverse.log_z, low=-inverse.high, high=-inverse.low, elbo=-inverse.log_z)


def share_not_covered(x: Tensor, by: Tensor) -> float:
    """The share of points x, with shape (n, D), that lie where points `by`, with shape (m, D), are all but absent.

    In one of two senses, whichever is larger: bins of one coordinate, each with a twentieth of x, in which `by` has
    less than a tenth of that share; and points of x whose nearest neighbour in `by` is three times as far as the
    farthest nearest neighbour, but for one in a hundred, within x itself. Weights repair what is merely rare.
    """
    from scipy.spatial import cKDTree  # five times what importing diffsampler takes

    x, by = (points.detach().double().cpu().numpy() for points in (x, by))
    centre, scale = np.median(x, 0), x.std(0) + np.finfo(float).tiny
    x, by = (x - centre) / scale, (by - centre) / scale
    unseen = 0.0
    for column, other in zip(x.T, by.T, strict=True):
        edges = np.quantile(column, np.linspace(0, 1, NUM_BINS + 1)[1:-1])
        bins = ((np.searchsorted(edges, values), len(values)) for values in (column, other))
        mine, theirs = (np.bincount(where, minlength=NUM_BINS) / num for where, num in bins)
        unseen = max(unseen, float(mine[theirs < UNDERREPRESENTED * mine].sum()))
    half = len(x) // 2
    within, _ = cKDTree(x[half:]).query(x[:half])
    across, _ = cKDTree(by).query(x[:half])
    return max(unseen, float((across > FAR * np.quantile(within, 0.99)).mean()))


def _weights(estimate: LogZEstimate) -> list[Finding]:
    effective, khat = estimate.ess * estimate.num_samples, f"Pareto khat {estimate.khat:.2f}"
    found: list[Finding] = []
    if math.isnan(estimate.khat) and estimate.num_samples >= MANY_ENOUGH:
        if math.isfinite(estimate.high):
            return [(0, f"The interval is that of the genealogy of {estimate.num_samples} particles.", "")]
        return [(2, "Too few lines of particles are left for an interval.", DRAW)]
    if math.isnan(estimate.khat):
        found.append((1, "The samples are too few to judge the tail of the weights.", DRAW))
    elif estimate.khat > KHAT_REFUSE and not math.isfinite(estimate.high):
        found.append((2, f"The weights are too heavy-tailed for an interval: {khat}.", TRAIN))
    elif estimate.khat > KHAT_WARN and estimate.ess < EVEN:
        found.append((1, f"The weights are heavy-tailed: {khat}.", TRAIN))
    if effective < FEW:
        level, step = (2, TRAIN) if effective < TOO_FEW else (1, DRAW)
        found.append((level, f"Only {effective:.0f} samples are effective.", step))
    gap = estimate.log_z - estimate.elbo
    if gap > WIDE_GAP:
        found.append((1, f"The ELBO is {in_nats(gap, 1)} nats below log Z: the sampler is far from the target.", TRAIN))
    return found or [(0, f"The weights are good: {khat}, {effective:.0f} effective samples.", "")]


def _agreement(
    estimate: LogZEstimate, reference: LogZEstimate | None, is_of_exact_draws: bool, compare: str, apart: str | None
) -> Iterator[Finding]:
    if reference is None:
        said = "No independent estimate stands beside it: modes that the sampler never visits cannot show."
        yield 1, said, compare
        return
    if not isinstance(reference, LogZEstimate):
        raise InputError(
            f"reference must be a LogZEstimate, such as reference(target).estimate, got {reference!r:.80}."
        )
    if not (math.isfinite(reference.high) and math.isfinite(reference.low)):
        yield 1, f"The reference, {reference.log_z:.3f}, is no help: it has no interval itself.", SEARCH
        return
    if reference.unseen > UNSEEN_MASS:
        said = f"By what single searches have missed, {reference.unseen:.1%} of the mass may be unseen by all."
        yield 1, said, SEARCH
    half = 0.5 * (reference.high - reference.low)
    if half > TOLERABLE and is_of_exact_draws:
        yield 1, f"What exact draws weigh, rolled back, varies: by them log Z is known to +- {half:.2f} only.", TRAIN
    elif half > TOLERABLE:
        said = f"The searches differ among themselves: their log Z is known to +- {half:.2f} only."
        yield 1, said, REPARAMETRISE
    difference = estimate.log_z - reference.log_z
    variance = estimate.variance + reference.variance
    errors = abs(difference) / math.sqrt(variance) if math.isfinite(variance) and variance > 0 else 0.0
    said = f"{difference:+.3f} nats from the reference"
    if errors > LARGE and abs(difference) > TOLERABLE:
        yield 2, f"It is {said}, {errors:.1f} standard errors: one of them is wrong.", apart or SEARCH
    elif errors > MODERATE and abs(difference) > NOTICEABLE:
        yield 1, f"It is {said}, {errors:.1f} standard errors.", apart or TRAIN
    elif not math.isfinite(variance):
        yield 0, f"It is {said}, but has no interval to compare.", ""
    else:
        yield 0, f"It agrees with the reference: {said}.", ""


def _places(x: Tensor, log_weight: Tensor, reference_x: Tensor, compare: str) -> Iterator[Finding]:
    if len(reference_x) < FEW:
        yield 1, f"The reference has {len(reference_x)} draws, too few to tell where modes are.", compare
        return
    generator = torch.Generator(x.device).manual_seed(0)
    # As many as the sampler has drawn: they say how near neighbours are, and more would be nearer.
    chosen = torch.randperm(len(reference_x), generator=generator, device=x.device)[: len(x)]
    missing = share_not_covered(reference_x[chosen.to(reference_x.device)], by=x)
    # What the sampler takes for the target: draws of no weight may be anywhere.
    effective = 1 / log_weight.softmax(0).square().sum()
    weighted = x[systematic(log_weight, min(len(x), len(reference_x)), generator)]
    extra = share_not_covered(weighted, by=reference_x) if effective >= FEW else 0.0
    if missing > UNSEEN:
        said = f"Modes are missing: {missing:.0%} of the reference's draws lie where the sampler hardly goes."
        yield 2, said, TRAIN
    if extra > UNSEEN:
        yield 1, f"The sampler has {extra:.0%} of the weight where the reference has hardly any draws.", SEARCH
    if max(missing, extra) <= UNSEEN:
        yield 0, "Sampler and reference have seen the same places.", ""


def _rolled_back(estimate: LogZEstimate, log_weight: Tensor, rolled_back: Tensor) -> Iterator[Finding]:
    """Whether draws of the target weigh what the sampler's own weights say they should.

    The target's mass at weights above c is P(w > c) over its draws rolled back, and E[w; w > c] / Z over the sampler's
    own. With c the 20th largest of these, both are known well enough to compare, as long as the own weights have a
    variance. Where they have none, that many draws of the target are heavier than all of them tells all the same.
    """
    usable = rolled_back[rolled_back.isfinite()]  # an edge of the support is lost by rounding
    if len(log_weight) < 2 * NUM_LARGEST or not len(usable):
        return
    found, expected, error = share_of_heavy(usable, log_weight)
    heavier = float((usable > log_weight.max()).double().mean())
    sandwich = f"ELBO {in_nats(estimate.elbo, 3)}, EUBO {in_nats(float(usable.mean()), 3)}"
    if heavier > MANY_HEAVIER:
        said = f"{heavier:.0%} of the draws of the target, rolled back, weigh more than any of the sampler's own"
        yield 2, f"Modes or tails are missing: {said} ({sandwich}).", TRAIN
    elif found > 2 * expected + UNSEEN and found - expected > LARGE * error:
        said = f"{found:.0%} of the draws of the target, rolled back, weigh more than all but {NUM_LARGEST} of the "
        said += f"sampler's own, which have {expected:.0%} of its weight"
        yield 1 + (found > UNDERREPRESENTED), f"Modes or tails are missing: {said} ({sandwich}).", TRAIN
    else:
        yield 0, f"Draws of the target, rolled back, weigh what they should: {sandwich}.", ""


def _history(history: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    last = [entry for entry in history[-5:] if None not in (entry["log_z"], entry["low"], entry["high"])]
    if len(last) < 5:
        return
    log_z = [entry["log_z"] for entry in last]
    drift = sum(log_z[3:]) / 2 - sum(log_z[:3]) / 3
    variance = sum(interval_variance(entry["low"], entry["high"]) for entry in last) / 5
    if abs(drift) > max(LARGE * math.sqrt(variance * (1 / 2 + 1 / 3)), TOLERABLE):
        yield 1, f"It still drifts: by {drift:+.3f} nats over the last five evaluations.", TRAIN
