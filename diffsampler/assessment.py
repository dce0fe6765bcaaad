"""An estimate of log Z with all that speaks for and against it: what `fit` and `test` report, from Python too."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline import Independent
from diffsampler.errors import InputError, check_instance, warn_of
from diffsampler.log_z import LogZDifference, LogZEstimate, Verdict, judge
from diffsampler.log_z.estimate import KHAT_REFUSE, in_nats
from diffsampler.log_z.verdict import COMPARE
from diffsampler.observables import ObservableEstimate, estimate_observable, find_observables
from diffsampler.paths import rolled_back_log_weight
from diffsampler.sampler import Sampler
from diffsampler.streams import new_generator
from diffsampler.target import Target

NUM_COMPARED = 2000
NUM_COMPONENTS = 8  # of an observable, at most, that a table shows
ROUNDED = 1e-9  # of a value, below which an error says nothing of its digits


@dataclass(frozen=True)
class Assessment:
    """An estimate, its verdict, and what they rest on; print it.

    Attributes:
        estimate: of log Z, by importance weights.
        verdict: its grade and the reasons.
        reference: an independent estimate, or None.
        true_log_z: that of the target, if it knows.
        draws: of the target, which the sampler was compared with, or None.
        draws_are_exact: whether they come from the target itself, not from a search or reference.
        eubo: the mean log-weight of those draws rolled back, an upper bound on log Z as far as they are exact, or None.
            Of a fine-tuned sampler, as far as P_B walks back as the pretrained one has come, too.
        num_network_evaluations: states that control networks were asked at so far, training included.
        observables: weighted means, by name, with standard errors that know nothing of modes that no draw has seen.
    """

    estimate: LogZEstimate
    verdict: Verdict
    reference: LogZEstimate | None
    true_log_z: float | None
    draws: Tensor | None
    draws_are_exact: bool
    eubo: float | None
    num_network_evaluations: int = 0
    observables: dict[str, ObservableEstimate] = field(default_factory=dict)

    def __sub__(self, other: "Assessment | LogZEstimate") -> LogZDifference:
        """The difference of log Z with its interval, for independent estimates: of evidences, a log Bayes factor."""
        return self.estimate - (other.estimate if isinstance(other, Assessment) else other)

    def __rsub__(self, other: LogZEstimate) -> LogZDifference:
        return other - self.estimate

    def __str__(self) -> str:
        reasons = "\n".join(f"    {reason}" for reason in self.verdict.reasons)
        table = format_table(self.estimate, self.true_log_z, self.reference, self.num_network_evaluations)
        steps = "".join(f"\n  next: {step}" for step in self.verdict.next_steps)
        means = f"\n{format_observables(self.observables, self.estimate)}" if self.observables else ""
        return f"{table}{means}\n  verdict: {self.verdict.grade}\n{reasons}{steps}"


def assess(
    sampler: Sampler,
    num_samples: int = 10_000,
    seed: int = 0,
    history: Sequence[dict[str, Any]] = (),
    reference: Independent | None = None,
    observables: Mapping[str, Callable[[Tensor], Tensor]] | Sequence[str] | None = None,
) -> Assessment:
    """Draw from a trained sampler, estimate log Z and judge the estimate.

    Arguments:
        sampler: the sampler.
        num_samples: its draws.
        seed: of all noise.
        history: what `fit` returned, to see whether the estimate still drifts.
        reference: an estimate without learning, by `diffsampler.baseline.reference`; by default that of the
            sampler's own search. Without any, no estimate is better than doubtful.
        observables: functions of x, with shape (n) or (n, k), or those of `diffsampler.observables`, by name, whose
            weighted means are reported; or names of what `observables_of(target)` offers, such as "energy". By default
            all `Target.observables`.

    Raises:
        InputError: if no draw has a usable density, the reference is another thing, or an observable that is asked for
            has no finite mean.
    """
    check_instance("sampler", sampler, Sampler, "Sampler(target), after fit")
    asked = find_observables(sampler.target, observables, tried=observables is not None)
    generator = new_generator("test", seed, device=sampler.device)
    x, log_weight = sampler.sample(num_samples, return_log_weights=True, generator=generator)
    estimate = sampler.estimate_from(log_weight)
    generator = new_generator("metrics", seed, device=sampler.device)
    found = assess_draws(sampler, x, log_weight, estimate, generator, history, reference)
    means = estimate_observables(sampler.target, asked, x, log_weight, must=observables is not None)
    return replace(found, observables=means)


def assess_draws(
    sampler: Sampler,
    x: Tensor,
    log_weight: Tensor,
    estimate: LogZEstimate,
    generator: torch.Generator,
    history: Sequence[dict[str, Any]] = (),
    reference: Independent | None = None,
) -> Assessment:
    """Judge an estimate by the draws x, with shape (n, D), and log-weights, with shape (n), that it was made from.

    Arguments:
        sampler: the sampler.
        x, log_weight, estimate: its draws, their log-weights, and what these say.
        generator: the noise of exact draws and of walks back; not that of x.
        history, reference: as in `assess`.
    """
    target = sampler.target
    if reference is not None and not isinstance(reference, Independent):
        raise InputError(f"reference must be what reference(target) returns, with its draws, got {reference!r:.80}.")
    known = sampler.reference if reference is None else reference.estimate
    if reference is None and sampler.search_is_outdated():
        known = None
        warnings.warn(
            f"{type(target).__name__}.log_prob gives other values than when it was searched: the search's estimate, of "
            "another density, is left out. Train on, by fit, which searches again.",
            stacklevel=3,
        )
    places = None
    if known is not None:
        places = sampler.coordinates.points if reference is None else reference.x
    exact = target.has_exact_samples
    n = min(NUM_COMPARED, len(x))
    draws = _exact_draws(target, n, generator) if exact else None
    exact = draws is not None
    if not exact and places is not None:
        draws = places[-min(n, sampler.coordinates.num_held_out) :] if reference is None else places[-n:]
    rolled_back, eubo = None, None
    if draws is not None:
        rolled_back = rolled_back_log_weight(sampler.dynamics, draws, generator)
        # Rounding moves a draw at an edge of the support out of it.
        finite = rolled_back[rolled_back.isfinite()]
        eubo = float(finite.mean()) if len(finite) else None
    advice = (COMPARE, None) if sampler.measure is None else (sampler.measure.compare, sampler.measure.apart)
    verdict = judge(estimate, known, x, log_weight, places, history, rolled_back, exact, *advice)
    network = sampler.num_network_evaluations
    return Assessment(estimate, verdict, known, target.log_z, draws, exact, eubo, network)


def estimate_observables(
    target: Target, asked: Mapping[str, Callable[[Tensor], Tensor]], x: Tensor, log_weight: Tensor, must: bool = False
) -> dict[str, ObservableEstimate]:
    """Weighted means by the draws x, with shape (n, D), and log-weights, with shape (n), beside exact ones if known.

    What has failed is left out, after a warning, unless it must not.
    """
    found, exact = {}, target.exact_observables if asked else {}
    if not isinstance(exact, Mapping):
        warn_of(f"{type(target).__name__}.exact_observables", TypeError(f"must be a dictionary, got {exact!r:.80}"))
        exact = {}
    for name, observable in asked.items():
        try:
            found[name] = estimate_observable(name, observable, x, log_weight, exact.get(name))
        except Exception as error:
            if must:
                raise
            warn_of(f"observable {name!r} has failed, and the report goes without", error)
    return found


def _exact_draws(target: Target, n: int, generator: torch.Generator) -> Tensor | None:
    """With shape (n, D); None, and a warning, where a target's own `sample` is of no use."""
    try:
        draws = target.sample(n, generator)
        if draws.shape == (n, target.dim) and draws.isfinite().all():
            return draws
        error = ValueError(f"it must return finite points of shape {(n, target.dim)}, got {tuple(draws.shape)}")
    except Exception as raised:
        error = raised
    warn_of(f"{type(target).__name__}.sample has failed, and the verdict goes without", error)
    return None


def format_observables(found: Mapping[str, ObservableEstimate], estimate: LogZEstimate) -> str:
    """The table of observables: values, standard errors, and errors where the truth is known."""
    rows = []
    for name, one in found.items():
        parts = [one.value, one.standard_error, *([] if one.exact is None else [one.exact, one.error, one.z_score])]
        components = torch.stack([part.reshape(-1) for part in parts], 1).tolist()
        if len(components) > NUM_COMPONENTS:
            rows.append((name, f"{len(components)} numbers, not shown"))
            continue
        for k, (value, error, *truth) in enumerate(components):
            digits = min(max(1 - math.floor(math.log10(error)), 0), 9) if error > ROUNDED * abs(value) else 4
            text = f"{value:.{digits}f} +- {error:.{digits}f}"
            if truth:
                text += f"  (exact {truth[0]:.{digits}f}, error {truth[1]:+.{digits}f}, z {truth[2]:+.1f})"
            rows.append((f"{name}[{k}]" if one.value.ndim else name, text))
    width = max(len(name) for name, _ in rows)
    lines = ["  observables, with standard errors", *(f"    {name:<{width}}  {text}" for name, text in rows)]
    if not math.isfinite(estimate.high):
        reason = f"Pareto khat is {estimate.khat:.2f}, above 0.7" if estimate.khat > KHAT_REFUSE else "too few draws"
        lines.append(f"  warning: {reason}: neither these values nor their errors can be relied on.")
    return "\n".join(lines)


def format_table(
    estimate: LogZEstimate,
    true_log_z: float | None = None,
    reference: LogZEstimate | None = None,
    num_network_evaluations: int = 0,
) -> str:
    """The log Z table, in words: estimate, interval, bound, diagnostics, costs, warnings; truth, reference if known."""
    rows = [
        ("log Z", f"{estimate.log_z:.4f}"),
        ("95 % interval", f"[{estimate.low:.4f}, {estimate.high:.4f}]"),
        ("ESS", f"{estimate.ess:.1%} of {estimate.num_samples} samples"),
        ("target evaluations", f"{estimate.num_target_evaluations:,}"),
    ]
    if estimate.elbo < estimate.log_z:  # SMC's own estimate is its bound
        rows.insert(2, ("ELBO", in_nats(estimate.elbo)))
    if reference is not None:
        rows.insert(2, ("reference", f"{reference.log_z:.4f} [{reference.low:.4f}, {reference.high:.4f}]"))
    if not math.isnan(estimate.khat):
        rows.insert(-1, ("Pareto khat", f"{estimate.khat:.2f}"))
    if true_log_z is not None:
        rows.insert(1, ("true log Z", f"{true_log_z:.4f}  (error {estimate.log_z - true_log_z:+.4f})"))
    if num_network_evaluations:
        rows.append(("network evaluations", f"{num_network_evaluations:,}"))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *(f"  warning: {warning}" for warning in estimate.warnings)])
