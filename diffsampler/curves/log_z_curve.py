"""log Z as a function of the context."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.assessment import Assessment, assess_draws, estimate_observables
from diffsampler.baseline import Independent
from diffsampler.baseline import reference as search
from diffsampler.curves.pool import MIN_DRAWS, Draws, Pool
from diffsampler.errors import InputError, check_count, check_flag, check_instance
from diffsampler.families import Family, read_contexts
from diffsampler.log_z import LogZEstimate, judge
from diffsampler.log_z.combined import Combined
from diffsampler.log_z.resampling import systematic
from diffsampler.log_z.verdict import LARGE, NOTICEABLE, TRAIN
from diffsampler.observables import find_observables
from diffsampler.progress import progress_of
from diffsampler.report.curve_figure import plot_curve
from diffsampler.sampler import Sampler
from diffsampler.streams import new_generator

NUM_JUDGED = 10_000  # of pooled draws
NEARER = "Draw at contexts nearer to it: add it to the contexts of log_z_curve."


@dataclass(frozen=True)
class LogZCurve:
    """log Z at several contexts, each judged by itself; print it.

    Attributes:
        names: of the C numbers of a context.
        contexts: float64, with shape (K, C): those with draws of their own, then those between.
        assessments: of each.
        own: what each one's own draws say alone; None where there are none.
        pool: the draws.
    """

    names: tuple[str, ...]
    contexts: Tensor
    assessments: tuple[Assessment, ...]
    own: tuple[LogZEstimate | None, ...]
    pool: Pool = field(repr=False)

    @property
    def estimates(self) -> list[LogZEstimate]:
        """By importance weights at each context, never from what a network has learned of log Z."""
        return [one.estimate for one in self.assessments]

    @property
    def log_z(self) -> Tensor:
        """With shape (K)."""
        return torch.tensor([one.log_z for one in self.estimates], dtype=torch.float64)

    @property
    def ends(self) -> Tensor:
        """log Z and the ends of its 95 % interval, with shape (K, 3)."""
        return torch.tensor([[one.log_z, one.low, one.high] for one in self.estimates], dtype=torch.float64)

    @property
    def grades(self) -> list[str]:
        """Of each verdict."""
        return [one.verdict.grade for one in self.assessments]

    def weighted(self, k: int) -> Combined:
        """The draws behind the estimate at the k-th context, as rows of `pool.x`."""
        return self.pool.at(self.contexts[k], None if self.own[k] is None else k)

    def plot(self) -> Figure:
        """log Z with its intervals against the number of the context that varies; those not trustworthy stand out.

        Contexts that are not on one line are points beside each other, in their order.
        """
        known = [one.true_log_z for one in self.assessments]
        is_between = [one is None for one in self.own]
        return plot_curve(self.contexts, self.ends, self.grades, self.names, known, is_between)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = zip(self.contexts.tolist(), self.assessments, self.own, strict=True)
        return {
            "names": list(self.names),
            "points": [
                {
                    "context": context,
                    "grade": one.verdict.grade,
                    "reasons": one.verdict.reasons,
                    **one.estimate.to_dict(),
                    "own": None if own is None else own.to_dict(),
                }
                for context, one, own in rows
            ],
        }

    def __str__(self) -> str:
        width = max(24, 12 * len(self.names))
        lines = [f"{', '.join(self.names):>{width}}  {'log Z':>28}  {'ESS':>6}  {'effective':>9}  verdict"]
        for context, one, own in zip(self.contexts.tolist(), self.assessments, self.own, strict=True):
            where, estimate = ", ".join(f"{value:.5g}" for value in context[:6]), one.estimate
            log_z = f"{estimate.log_z:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
            ess, effective = "" if own is None else f"{own.ess:.1%}", estimate.ess * estimate.num_samples
            lines.append(f"{where:>{width}}  {log_z:>28}  {ess:>6}  {effective:>9,.0f}  {one.verdict.grade}")
        return "\n".join(lines)


def log_z_curve(
    sampler: Sampler,
    contexts: Tensor | Sequence[Any],
    num_samples: int = 10_000,
    seed: int = 0,
    observables: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    progress_bar: bool = False,
    between: Tensor | Sequence[Any] = (),
    pool: bool | None = None,
    reference: bool = False,
) -> LogZCurve:
    """log Z of several members of a family, each from importance weights of its own draws and its neighbours'.

    Arguments:
        sampler: of the family, after `fit`.
        contexts: with shape (K, C), or (K) where C is 1.
        num_samples: draws at each.
        seed: of all noise; each context has a stream of its own.
        observables: as in `assess`.
        progress_bar: whether to show how far it is.
        between: further contexts, at which nothing is drawn: the draws of the others are weighed for them.
        pool: whether draws are weighed for neighbours. By default where that is free, in families with `statistics`
            (`Tempered`, `Scalarised`), and where there are contexts between; elsewhere it takes an evaluation for each
            draw and context.
        reference: whether each density that is drawn of is searched from nothing too, seconds and some hundred thousand
            evaluations each, to compare with; data to infer from have nothing else.

    Raises:
        InputError: if the sampler is none of a family, or there are no contexts.
    """
    check_instance("sampler", sampler, Sampler, "Sampler(family), after fit")
    check_count("num_samples", num_samples)
    family = sampler.target
    if not isinstance(family, Family):
        raise InputError(f"log_z_curve is for samplers of a Family; {type(family).__name__} is one density.")
    rows, others = read_contexts(family, contexts), read_contexts(family, between, "between", minimum=0)
    check_count("seed", seed, minimum=0)
    if others and (num_samples < MIN_DRAWS or pool is False):
        raise InputError(f"between needs draws that are pooled, {MIN_DRAWS} at each context at least.")
    is_shared = family.has_statistics or bool(others) if pool is None else check_flag("pool", pool)
    check_flag("reference", reference)
    before = num_evaluations = sampler.num_target_evaluations
    members, drawn, num_invalid = [], [], 0
    with progress_of("Curve", len(rows), " contexts", progress_bar, progress_bar) as tell:
        for k, context in enumerate(rows):
            member = sampler.given(context)
            generator = new_generator("test", seed, step=k, device=sampler.device)
            x, log_weight = member.sample(num_samples, return_log_weights=True, generator=generator)
            drawn.append(Draws(context, x, log_weight, member.estimate_from(log_weight)))
            members.append(member)
            num_evaluations += member.num_target_evaluations - before
            num_invalid += member.counter.num_invalid
            tell(k + 1)
    rounding = max(member.counter.rounding for member in members)
    pooled = Pool(family, drawn, is_shared and num_samples >= MIN_DRAWS, num_evaluations, num_invalid, rounding)
    with progress_of("References", len(rows), " contexts", progress_bar and reference) as tell:
        found = []
        for k, member in enumerate(members):
            known = search(member.target, seed=seed + k) if reference else None
            found.append(_assessed(member, pooled, k, seed, observables, known))
            tell(k + 1)
    found += [_between(sampler.given(context), pooled, context, observables) for context in others]
    own = (*(one.estimate for one in drawn), *(None for _ in others))
    return LogZCurve(_names(family), torch.stack(rows + others), tuple(found), own, pooled)


def _assessed(
    member: Sampler,
    pool: Pool,
    k: int,
    seed: int,
    observables: Mapping[str, Callable[[Tensor], Tensor]] | None,
    known: Independent | None,
) -> Assessment:
    """Of a context with draws of its own, which are what is judged."""
    mine, used = pool.drawn[k], pool.at(pool.drawn[k].context, k)
    estimate = replace(used.estimate, elbo=mine.estimate.elbo)
    generator = new_generator("metrics", seed, step=k, device=member.device)
    found = assess_draws(member, mine.x, mine.log_weight, estimate, generator, reference=known)
    verdict, others = found.verdict, pool.by_others(k)
    if others is not None:
        apart, variance = mine.estimate.log_z - others.log_z, mine.estimate.variance + others.variance
        if abs(apart) > max(LARGE * math.sqrt(variance), NOTICEABLE):
            said = f"Its own draws and those of its neighbours differ by {apart:+.3f} nats."
            verdict = verdict.with_doubt(said, TRAIN)
    return replace(found, verdict=verdict, observables=_means(member, pool, used, observables))


def _between(
    member: Sampler, pool: Pool, context: Tensor, observables: Mapping[str, Callable[[Tensor], Tensor]] | None
) -> Assessment:
    """Of a context without: the draws of others, weighed for it."""
    used = pool.at(context)
    known, generator = member.reference, torch.Generator(member.device).manual_seed(0)
    chosen = used.rows[systematic(used.log_weight, min(NUM_JUDGED, len(used.rows)), generator)]
    x = pool.x[chosen]
    places = None if known is None else member.coordinates.points
    verdict = judge(used.estimate, known, x, torch.zeros(len(x), dtype=torch.float64, device=x.device), places)
    if verdict.next_steps:
        verdict = replace(verdict, next_steps=[NEARER, *verdict.next_steps])
    means = _means(member, pool, used, observables)
    return Assessment(used.estimate, verdict, known, member.target.log_z, None, False, None, observables=means)


def _means(
    member: Sampler, pool: Pool, used: Combined, observables: Mapping[str, Callable[[Tensor], Tensor]] | None
) -> dict[str, Any]:
    asked = find_observables(member.target, observables, tried=observables is not None)
    if not asked:
        return {}
    return estimate_observables(member.target, asked, pool.x[used.rows], used.log_weight, must=observables is not None)


def _names(family: Family) -> tuple[str, ...]:
    """Of the numbers of a context."""
    if family.context_names:
        return tuple(family.context_names)
    return tuple(f"context {k}" if family.context_dim > 1 else "context" for k in range(1, family.context_dim + 1))
