"""Draws of several members of a family, each of use for its neighbours too."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.families import Family
from diffsampler.log_z import LogZEstimate
from diffsampler.log_z.combined import Combined, Sources

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
    any backward kernel will do, so that it need not be walked again. Its mean is Z(c), whatever j, where members are
    dense in the same places; `Sources` puts several together where they are not.

    Arguments:
        family: whose members they are.
        drawn: of each.
        is_shared: whether draws of one are weighed for others.
        num_target_evaluations, num_invalid_evaluations: what all cost.
        rounding: as in `estimate_log_z`.
    """

    def __init__(
        self,
        family: Family,
        drawn: Sequence[Draws],
        is_shared: bool,
        num_target_evaluations: int,
        num_invalid_evaluations: int,
        rounding: float = 0.0,
    ) -> None:
        self.family, self.drawn = family, drawn
        self.num_target_evaluations, self.num_invalid_evaluations = num_target_evaluations, num_invalid_evaluations
        # What gives log R at any context: a few numbers, or the draws themselves.
        self._known = [self._known_of(one.x) for one in drawn] if is_shared or family.has_statistics else []
        self.sources: Sources | None = None
        if is_shared:
            log_probs = [torch.stack([self._log_prob_at(x, one.context) for one in drawn], -1) for x in self._known]
            self.sources = Sources([one.log_weight for one in drawn], log_probs, rounding)

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

        Raises:
            InputError: if there is mass where no draws may be.
        """
        if own is not None and (self.sources is None or len(self.drawn) < 2):
            before, mine = sum(len(one.x) for one in self.drawn[:own]), self.drawn[own]
            rows = before + torch.arange(len(mine.x), device=mine.x.device)
            return Combined(mine.estimate, rows, mine.log_weight, torch.eye(len(self.drawn))[own].double())
        if own is None:
            log_prob = [self._log_prob_at(one, context) for one in self._known]
        else:
            log_prob = [rows[:, own] for rows in self.sources.log_probs]
        try:
            return self.sources.at(log_prob, own, self.num_target_evaluations, self.num_invalid_evaluations)
        except InputError as error:
            raise InputError(f"At the context {context.tolist()}: {error}") from error

    def by_others(self, own: int) -> LogZEstimate | None:
        """log Z of a member by the draws of the others alone; None where they say nothing."""
        return None if self.sources is None or len(self.drawn) < 2 else self.sources.others[own]

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
        found = self.family.log_prob(known, context).double()
        self.num_invalid_evaluations += int((~(found < math.inf)).sum())
        return found
