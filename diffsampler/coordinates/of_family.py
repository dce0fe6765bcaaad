"""Coordinates of a family: where each member is, found by searches at a few contexts."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsampler.baseline import Replicates, reference
from diffsampler.baseline.conditional_map import ConditionalMap, fit_conditional_map
from diffsampler.baseline.proposal import Proposal
from diffsampler.baseline.reweighted import KnownDraws
from diffsampler.coordinates.found import FoundCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.density import CheckedTarget
from diffsampler.errors import InputError, check_count
from diffsampler.families import Family, Joint
from diffsampler.families.contexts import draw_contexts, draw_jointly, spread_contexts
from diffsampler.log_z import LogZEstimate, estimate_log_z
from diffsampler.log_z.resampling import systematic
from diffsampler.spaces import Space
from diffsampler.streams import new_generator
from diffsampler.target import space_of, support_of

NUM_SEARCHES = 8
NUM_CANDIDATES = 4096  # contexts among which those searched are far from each other
NUM_REWEIGHTED, NUM_POOLED = 64, 4000  # contexts between the searched ones; draws of these that are weighed for each
FEWEST_SEARCHES = 3  # whatever they cost: the middle and two ends
SMALLEST_SEARCH = 2_000_000  # evaluations
ENOUGH = 100  # effective draws
FITTED_TO = 8000
LEARNED, NUM_REFERRED = 0.8, 2000  # share of a search's draws to learn from; draws of a member by which it is judged


class Pool(NamedTuple):
    """Draws of several densities, with shape (n, D), and the log-density of their mixture there, with shape (n)."""

    x: Tensor
    log_mixture: Tensor


class FamilyCoordinates(FoundCoordinates):
    """The coordinates in which all members of a family are as nearly N(0, I) as searches of a few tell.

    Pairs (z, c) stand for (x, context): contexts in units of their spread, z the image of x under a map that bends with
    the context; where the family declares a support, the image of y, from where it is mapped to x. Draws of contexts in
    between are those of the searched ones, weighed; where a family has exact joint draws, nothing is searched.

    Arguments:
        joint: the family, as a function of pairs.
        num_points: how many draws are kept, at least 2.

    Attributes:
        of_one: the space in which z of one member is.
        bend: the map from z to x, or to y where a support is declared; None before the search.
    """

    def __init__(self, joint: Joint, num_points: int = 20_000) -> None:
        space = space_of(joint)
        super().__init__(space.dim, joint.dim)
        self._space, self.of_one = space, space_of(joint.family)
        self._family = (joint.family,)
        self.onto = support_of(joint.family)
        self.register_buffer(
            "points", torch.zeros(check_count("num_points", num_points, minimum=2), joint.dim).double()
        )
        contexts = draw_contexts(self.family, NUM_CANDIDATES, torch.Generator().manual_seed(0)).double()
        spread = contexts.std(0)
        self.register_buffer("context_loc", contexts.mean(0))
        self.register_buffer("context_scale", torch.where(spread > 0, spread, 1.0))
        self.register_buffer("pool", torch.zeros(NUM_POOLED, self.family.dim).double())
        self.register_buffer("log_mixture", torch.zeros(NUM_POOLED).double())
        self.bend: ConditionalMap | None = None
        self._is_found, self._pool_error, self._unseen = False, 0.0, 0.0

    @property
    def family(self) -> Family:
        """Whose coordinates these are."""
        return self._family[0]

    @property
    def space(self) -> Space:
        return self._space

    @property
    def smallest_search(self) -> int:
        return 0 if self.family.has_joint_samples else SMALLEST_SEARCH

    @property
    def is_found(self) -> bool:
        return self._is_found

    def in_units(self, context: Tensor) -> Tensor:
        """Contexts in the units of states, with shape (*, C)."""
        return (context - self.context_loc) / self.context_scale

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        state, unit = self._split(z.double(), self.of_one.dim)
        x, log_det = self.forward_given(state, unit)
        return torch.cat([x, self.context_loc + self.context_scale * unit], -1), log_det

    def inverse(self, x: Tensor) -> Tensor:
        point, context = self._split(x.double(), self.family.dim)
        unit = self.in_units(context)
        return torch.cat([self.inverse_given(point, unit), unit], -1)

    def forward_given(self, z: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dz|, with shapes (*, D) and (*), for z and contexts in the units of states."""
        y, log_det = z, z.new_zeros(z.shape[:-1])
        if self.bend is not None:
            y, log_det = self.bend.forward(_rows(z), _rows(unit))
            y, log_det = y.view_as(z), log_det.view(z.shape[:-1])
        if self.onto is None:
            return y, log_det
        x, stretched = self.onto.forward(y)
        return x, log_det + stretched

    def inverse_given(self, x: Tensor, unit: Tensor) -> Tensor:
        """z, with shape (*, D)."""
        y = x if self.onto is None else self.onto.inverse(x)
        return y if self.bend is None else self.bend.inverse(_rows(y), _rows(unit))[0].view_as(y)

    @torch.no_grad()
    def search(
        self,
        counter: CountedTarget,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        max_evaluations: int | None = None,
    ) -> Replicates | None:
        generator = new_generator("search", seed, device=self.points.device)
        family, num = self.family, len(self.points)
        if family.has_joint_samples:
            x, context, found = *(part.to(self.points) for part in draw_jointly(family, num, generator)), None
        else:
            x, context, found = self._searched(counter, generator, progress or (lambda done: None), max_evaluations)
        some = torch.randperm(num, generator=generator, device=x.device)[:FITTED_TO]
        self.fit(x[some], self.in_units(context[some]))
        self.points.copy_(torch.cat([x, context], -1))
        self._is_found, self.num_target_evaluations = True, counter.num_evaluations
        if family.has_density:
            self._log_prob_then = counter.log_prob(self.points[-16:]).tolist()
        return found

    def fit(self, x: Tensor, unit: Tensor) -> None:
        """Take on the coordinates that draws x, of contexts in the units of states, tell: (n, D) and (n, C)."""
        self.bend = fit_conditional_map(x if self.onto is None else self.onto.inverse(x), unit)

    def in_order(self, searched: Tensor) -> Tensor:
        """Contexts, with shape (K, C), in the order in which they are searched."""
        return searched

    def begin_from(self, found: Replicates, generator: torch.Generator) -> Proposal | KnownDraws:
        """What another search begins from, of what one has found."""
        return found.prior

    def _searched(
        self,
        counter: CountedTarget,
        generator: torch.Generator,
        tell: Callable[[float], None],
        max_evaluations: int | None,
    ) -> tuple[Tensor, Tensor, Replicates]:
        """Draws of many contexts, with shapes (n, D) and (n, C), and what was found at the last one searched."""
        searched = spread_contexts(self.family, NUM_SEARCHES, generator, NUM_CANDIDATES).to(self.points)
        searched = self.in_order(searched)
        found: list[Replicates] = []
        for k, context in enumerate(searched):
            if k >= FEWEST_SEARCHES and max_evaluations is not None and counter.num_evaluations >= max_evaluations:
                break
            one = CountedTarget(CheckedTarget(self.family.given(context)))
            known = self._nearest(found, searched, context, generator)
            limit = None if max_evaluations is None else max_evaluations // NUM_SEARCHES
            try:
                found.append(
                    reference(
                        one,
                        generator=generator,
                        progress=lambda done, k=k: tell((k + done) / NUM_SEARCHES),
                        max_evaluations=limit,
                        known=known,
                    )
                )
            except InputError as error:
                raise InputError(f"At the context {context.tolist()}: {error}") from error
            counter.num_evaluations += one.num_evaluations
            counter.num_invalid += one.num_invalid
        if len(found) < len(searched):
            warnings.warn(_ended_early(counter.num_evaluations, searched, len(found)), stacklevel=2)
            searched = searched[: len(found)]
        learned, held_out = zip(*(one.split(LEARNED, generator) for one in found), strict=True)
        pool = self._pool(counter, held_out, searched, generator)
        self.pool.copy_(pool.x)
        self.log_mixture.copy_(pool.log_mixture)
        self._pool_error = max(0.5 * (one.estimate.high - one.estimate.low) for one in found)
        self._unseen = max(one.estimate.unseen for one in found)
        x, context = self._between(counter, learned, searched, generator)
        return x, context, found[-1]

    def _nearest(
        self, found: list[Replicates], searched: Tensor, context: Tensor, generator: torch.Generator
    ) -> Proposal | KnownDraws | None:
        if not found:
            return None
        distance = ((searched[: len(found)] - context) / self.context_scale).norm(dim=-1)
        return self.begin_from(found[int(distance.argmin())], generator)

    def _pool(
        self, counter: CountedTarget, found: Sequence[Replicates], searched: Tensor, generator: torch.Generator
    ) -> "Pool":
        """Draws of all searched contexts, with their density.

        References:
            Statistically optimal analysis of samples from multiple equilibrium states, Shirts & Chodera, 2008,
                arXiv:0801.1426: draws of all states together, as draws of their mixture.
        """
        sizes = _even(NUM_POOLED, len(found))
        x = torch.cat([one.resampled(size, generator) for one, size in zip(found, sizes, strict=True)])
        # Of the mixture: the log of each one's share, over its Z.
        scale = [math.log(size / NUM_POOLED) - one.estimate.log_z for one, size in zip(found, sizes, strict=True)]
        log_probs = torch.stack([self._log_prob(counter, x, context) for context in searched])
        return Pool(x, (log_probs + torch.tensor(scale, dtype=x.dtype, device=x.device).unsqueeze(1)).logsumexp(0))

    def _between(
        self, counter: CountedTarget, found: Sequence[Replicates], searched: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draws of the searched contexts, and of others for which these are near enough: (n, D) and (n, C)."""
        pool, num = self._pool(counter, found, searched, generator), len(self.points)
        others = draw_contexts(self.family, NUM_REWEIGHTED, generator).to(pool.x)
        known = [(context, one.resampled) for context, one in zip(searched, found, strict=True)]
        for context in others:
            weight = (self._log_prob(counter, pool.x, context) - pool.log_mixture).softmax(0)
            if float(1 / weight.square().sum()) > ENOUGH:
                known.append((context, lambda n, source, weight=weight: pool.x[_drawn(weight, n, source)]))
        sizes = _even(num, len(known))
        x = torch.cat([draw(size, generator) for (_, draw), size in zip(known, sizes, strict=True)])
        context = torch.cat([context.expand(size, -1) for (context, _), size in zip(known, sizes, strict=True)])
        order = torch.randperm(num, generator=generator, device=x.device)
        return x[order], context[order]

    @torch.no_grad()
    def refer(self, counter: CountedTarget) -> tuple[LogZEstimate, Tensor] | None:
        """What held-out draws of the searches say of one member, and draws of it; None where they are too far.

        Arguments:
            counter: the member, in its own coordinates.
        """
        if not self.pool.any():
            return None
        log_weight = counter.log_prob(self.pool)
        log_weight = torch.where(log_weight < math.inf, log_weight, -math.inf) - self.log_mixture
        if not float(1 / log_weight.softmax(0).square().sum()) > ENOUGH:
            return None
        found = estimate_log_z(log_weight, counter.num_evaluations, counter.num_invalid)
        # The searches' own errors, which all of the pool shares.
        low, high = (math.hypot(end - found.log_z, self._pool_error) for end in (found.low, found.high))
        estimate = replace(found, low=found.log_z - low, high=found.log_z + high, unseen=self._unseen)
        rows = systematic(log_weight, NUM_REFERRED, torch.Generator(self.pool.device).manual_seed(0))
        return estimate, self.pool[rows]

    @staticmethod
    def _log_prob(counter: CountedTarget, x: Tensor, context: Tensor) -> Tensor:
        log_prob = counter.log_prob(torch.cat([x, context.expand(len(x), -1)], -1))
        return torch.where(log_prob < math.inf, log_prob, -math.inf)

    def get_extra_state(self) -> dict[str, Any]:
        return {
            **super().get_extra_state(),
            "is_found": self._is_found,
            "of_pool": (self._pool_error, self._unseen),
            "bend": None if self.bend is None else asdict(self.bend),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self._is_found = state["is_found"]
        self._pool_error, self._unseen = state["of_pool"]
        self.bend = None if state["bend"] is None else ConditionalMap.from_dict(**state["bend"])

    def _split(self, pairs: Tensor, dim: int) -> tuple[Tensor, ...]:
        return pairs.split([dim, self.family.context_dim], -1)


def _ended_early(num_evaluations: int, searched: Tensor, num_found: int) -> str:
    """What is said of contexts that were left out."""
    missing = ", ".join(str([float(f"{value:.4g}") for value in context]) for context in searched[num_found:].tolist())
    return (
        f"The search has ended after {num_found} of {len(searched)} contexts: {num_evaluations:,} evaluations are more "
        "than half of max_target_evaluations. Training goes on with what was found; near the contexts that were left "
        f"out, {missing}, there may be nothing to learn from, nor to compare with. Raise it to search them all."
    )


def _even(total: int, num: int) -> list[int]:
    """A total as so many numbers, as even as can be."""
    return [total // num + (k < total % num) for k in range(num)]


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _drawn(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(weight, n, replacement=True, generator=generator)
