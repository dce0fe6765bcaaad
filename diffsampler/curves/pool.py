"""Draws of several members of a family, each of use for its neighbours too."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffsampler.families import Family
from diffsampler.log_z import LogZEstimate
from diffsampler.log_z.combined import Combined, combine

MIN_DRAWS = 100  # of each member, below which nothing tells how much others are of use


class Draws(NamedTuple):
    """Of the member at a context, with shape (C): x and log-weights, with shapes (n, D) and (n), and what these say."""

    context: Tensor
    x: Tensor
    log_weight: Tensor
    estimate: LogZEstimate


class Pool:
    """Weighted draws of any member, from draws of several.

    A trajectory that was drawn at context c_j, with the weight w, has the weight w R(x | c) / R(x | c_j) at context c:
    any backward kernel will do, so that it need not be walked again. Its mean is Z(c), whatever j.

    Arguments:
        family: whose members they are.
        drawn: of each.
        is_shared: whether draws of one are weighed for others.
        num_target_evaluations, num_invalid_evaluations: what all cost.
    """

    def __init__(
        self,
        family: Family,
        drawn: Sequence[Draws],
        is_shared: bool,
        num_target_evaluations: int,
        num_invalid_evaluations: int,
    ) -> None:
        self.family, self.drawn, self.is_shared = family, drawn, is_shared
        self.num_target_evaluations, self.num_invalid_evaluations = num_target_evaluations, num_invalid_evaluations
        # What gives log R at any context: a few numbers, or the draws themselves.
        sources = drawn if is_shared or family.has_statistics else []
        self._known = [self._known_of(one.x) for one in sources]
        self._log_prob = [self._log_prob_at(self._known[j], one.context) for j, one in enumerate(sources)]

    @property
    def x(self) -> Tensor:
        """All draws, one source after the other."""
        return torch.cat([one.x for one in self.drawn])

    @property
    def statistics(self) -> Tensor:
        """Those of all draws, in families that have some, with shape (N, S)."""
        return torch.cat(self._known)

    def at(self, context: Tensor, own: int | None = None) -> Combined:
        """Those that are of use at a context, with shape (C), weighed for it.

        Arguments:
            context: of the member.
            own: which draws are its own, if there are any.
        """
        if own is not None and not (self.is_shared and len(self.drawn) > 1):
            before, mine = sum(len(one.x) for one in self.drawn[:own]), self.drawn[own]
            rows = before + torch.arange(len(mine.x), device=mine.x.device)
            return Combined(mine.estimate, rows, mine.log_weight, torch.eye(len(self.drawn))[own].double())
        groups = [self._weighed(j, context, own) for j in range(len(self.drawn))]
        return combine(groups, own, self.num_target_evaluations, self.num_invalid_evaluations)

    def by_others(self, context: Tensor, own: int) -> LogZEstimate | None:
        """log Z of a member by the draws of the others alone; None where they say nothing."""
        if not self.is_shared or len(self.drawn) < 2:
            return None
        groups = [self._weighed(j, context, None) for j in range(len(self.drawn)) if j != own]
        if all(group.isneginf().all() for group in groups):
            return None
        return combine(groups).estimate

    def _weighed(self, j: int, context: Tensor, own: int | None) -> Tensor:
        """Log-weights of the draws of source j at a context; all -inf where these are none of it."""
        log_weight = self.drawn[j].log_weight
        if j == own:
            return log_weight
        log_prob = self._log_prob_at(self._known[j], context)
        was_zero = self._log_prob[j].isneginf()
        if (was_zero & ~log_prob.isneginf()).any():  # mass where the source has none, hence no weights
            return torch.full_like(log_weight, -math.inf)
        moved = log_weight + log_prob - self._log_prob[j]
        return torch.where(moved.isnan() | log_weight.isneginf(), -math.inf, moved)

    @torch.no_grad()
    def _known_of(self, x: Tensor) -> Tensor:
        if not self.family.has_statistics:
            return x.double()
        self.num_target_evaluations += len(x)
        return self.family.statistics(x.double()).double()

    @torch.no_grad()
    def _log_prob_at(self, known: Tensor, context: Tensor) -> Tensor:
        context = context.to(known).expand(len(known), -1)
        if self.family.has_statistics:
            return self.family.log_prob_of(known, context)
        self.num_target_evaluations += len(known)
        return self.family.log_prob(known, context).double()
