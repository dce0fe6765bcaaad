"""Proposals that learn from what they have drawn, until importance weights say that nothing is left to learn."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffsampler.baseline.part import Part
from diffsampler.baseline.proposal import Proposal, fit_proposal
from diffsampler.baseline.wander import wander
from diffsampler.counted import CountedTarget
from diffsampler.density import or_zero_density
from diffsampler.log_z.estimate import KHAT_WARN
from diffsampler.log_z.resampling import step_at_ess
from diffsampler.log_z.weights import WeightSummary

NUM_DRAWS = 2000
MAX_ROUNDS = 20
REMEMBERED = 3
OVERRELAXED = 1.6
FIT_ESS = 0.15  # of the points that a proposal is fitted to
GOOD_ESS, USEFUL_ESS, USEFUL_KHAT = 0.3, 0.05, 0.7
SETTLING, PATIENCE = 3, 5  # rounds
MOVING, DRIFTING = 4.5, 2.0  # standard errors
PRECISE = 0.05  # nats
AS_GOOD = 0.9
NUM_MOVED, MOVED_SHARE = 300, 0.3


@dataclass(frozen=True)
class Round:
    """A proposal and its weighted draws.

    Attributes:
        proposal: what the draws come from.
        x: with shape (n, D).
        log_prob: of the target there, with shape (n).
        log_weight: log R - log proposal, with shape (n).
    """

    proposal: Proposal
    x: Tensor
    log_prob: Tensor
    log_weight: Tensor

    @cached_property
    def log_z(self) -> float:
        """The log of the mean weight."""
        return self._summary.log_sum - math.log(self._summary.num)

    @cached_property
    def ess(self) -> float:
        """The effective sample size, as a fraction."""
        return self._summary.ess

    @cached_property
    def standard_error(self) -> float:
        """Of log Z, by the delta method."""
        return math.sqrt(max(1 / self.ess - 1, 0.0) / self._summary.num)

    @cached_property
    def khat(self) -> float:
        """The Pareto shape of the largest weights."""
        return self._summary.khat

    @cached_property
    def _summary(self) -> WeightSummary:
        return WeightSummary(len(self.log_weight)).add(self.log_weight)


def weigh(target: CountedTarget, proposal: Proposal, n: int, generator: torch.Generator) -> Round:
    """n draws of a proposal, and their weights."""
    x = proposal.sample(n, generator)
    far = ~x.isfinite().all(-1)
    x[far] = proposal.centre
    log_prob = torch.where(far, -math.inf, or_zero_density(target.log_prob(x)))
    log_weight = torch.where(log_prob.isneginf(), -math.inf, log_prob - proposal.log_prob(x))
    # What overflows on the way back through a map is lost.
    return Round(proposal, x, log_prob, torch.where(log_weight < math.inf, log_weight, -math.inf))


def refine(
    target: CountedTarget,
    proposal: Proposal,
    generator: torch.Generator,
    max_rounds: int = MAX_ROUNDS,
    tell: Callable[[float], None] = lambda done: None,
) -> Round:
    """Draw, weigh, fit, and draw again.

    Each proposal is fitted to the draws of several rounds, weighted by what they say together. A rising effective
    sample size is no proof that all is found: rounds go on as long as log Z moves. The best of the last ones counts.

    References:
        Adaptive multiple importance sampling, Cornuet, Marin, Mira & Robert, 2012.
    """
    rounds: list[Round] = []
    for k in range(max_rounds):
        rounds.append(weigh(target, proposal, NUM_DRAWS, generator))
        tell((k + 1) / max_rounds)
        last = rounds[-1]
        if _is_settled(rounds) or k + 1 == max_rounds or not last.log_weight.isfinite().any():
            break
        moved, _ = wander(target, last.proposal, last.x, last.log_weight, NUM_MOVED, generator)
        proposal = _fitted(rounds[-REMEMBERED:], moved)
    return max(rounds[-PATIENCE:], key=lambda one: one.ess)


def together(rounds: list[Round]) -> tuple[Tensor, Tensor, Tensor]:
    """All draws of R rounds, the target's log_prob there, and that of each proposal: (n, D), (n) and (R, n)."""
    x = torch.cat([one.x for one in rounds])
    log_q = torch.stack([one.proposal.log_prob(x) for one in rounds])
    return x, torch.cat([one.log_prob for one in rounds]), log_q


def _is_settled(rounds: list[Round]) -> bool:
    """Whether the last rounds agree: about log Z, and that nothing more is to be had."""
    if len(rounds) < SETTLING:
        return False
    last = rounds[-SETTLING:]
    log_z = torch.tensor([one.log_z for one in last])
    noise = max(one.standard_error for one in last)
    still = float(log_z.max() - log_z.min()) < MOVING * noise and float(log_z[-1] - log_z[0]) < DRIFTING * noise
    if all(one.ess > GOOD_ESS and one.khat < KHAT_WARN for one in last):
        return still
    if len(rounds) <= PATIENCE:
        return False
    better = max(one.ess for one in rounds[-PATIENCE:]) > 1.2 * max(one.ess for one in rounds[:-PATIENCE])
    return still and not better and noise < PRECISE


def _fitted(rounds: list[Round], moved: Tensor) -> Proposal:
    """To the draws of all of them, as draws of the mixture of their proposals, and to what has moved from there."""
    x, log_prob, log_q = together(rounds)
    log_weight = log_prob - (log_q.logsumexp(0) - math.log(len(rounds)))
    usable = log_weight.isfinite()
    x, log_weight = x[usable], log_weight[usable]
    # A power above 1 goes further the same way: where the target is wider than its proposals, rounds soon catch up.
    power = step_at_ess(log_weight, OVERRELAXED, FIT_ESS)
    weight = (power * log_weight).softmax(0)
    x = torch.cat([x, moved])
    weight = torch.cat([(1 - MOVED_SHARE) * weight, weight.new_full((len(moved),), MOVED_SHARE / len(moved))])
    parts = _needed(rounds[-1])
    label = Proposal(parts, weight.new_ones(len(parts))).label(x)
    return fit_proposal(x, weight, label, parts)


def _needed(last: Round) -> list[Part]:
    """The parts of a proposal, or its first alone, the one for all points, where weights are as even without the rest.

    Pieces of what one part says as well hide how it goes on beyond the points.
    """
    whole, log_weight = last.proposal.parts[0], last.log_weight
    # Of w = R / q under another proposal p: 1 / ESS is E_target[R / p] / Z.
    share, log_z = log_weight.softmax(0), last.log_z
    log_ratio = torch.where(share > 0, last.log_prob - log_z - whole.log_prob(last.x), -math.inf)
    alone = math.exp(-min(float((share.log() + log_ratio).logsumexp(0)), 700.0))
    return [whole] if alone > AS_GOOD * last.ess else last.proposal.parts
