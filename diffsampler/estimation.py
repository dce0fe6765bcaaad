"""The ways in which a sampler estimates log Z, by name."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError
from diffsampler.log_z import LogZEstimate, WeightSummary, estimate_log_z
from diffsampler.log_z.estimate import warned_of_scores
from diffsampler.paths import Dynamics, ProbabilityFlow, sequential_rollout, weighted_rollout
from diffsampler.progress import in_batches

NUM_GROUPS, SMALLEST_GROUP = 50, 20


def estimate_from(
    target: CountedTarget,
    log_weight: Tensor | WeightSummary,
    draws_per_weight: int = 1,
    guide: CountedTarget | None = None,
) -> LogZEstimate:
    """The estimate that these log-weights support, with what the target has cost and how often it failed.

    Or how often the density has failed whose score networks take, where that is another one.
    """
    counts = target.num_evaluations, target.num_invalid
    estimate = estimate_log_z(log_weight, *counts, draws_per_weight, target.rounding)
    return estimate if guide is None else warned_of_scores(estimate, guide.num_evaluations, guide.num_invalid)


def by_importance(
    dynamics: Dynamics, n: int, generator: torch.Generator | None, batch_size: int, progress_bar: bool
) -> LogZEstimate:
    """Independent draws, weighed; neither draws nor weights are kept."""
    summary = WeightSummary(n)
    for count in in_batches(n, batch_size, progress_bar):
        summary.add(weighted_rollout(dynamics, count, generator)[1])
    return estimate_from(dynamics.target, summary, guide=dynamics.guide)


def by_smc(
    dynamics: Dynamics, n: int, generator: torch.Generator | None, batch_size: int, progress_bar: bool
) -> LogZEstimate:
    """Draws that are resampled on the way within groups; the groups' means are weights of their own."""
    group_size = max(SMALLEST_GROUP, min(math.ceil(n / NUM_GROUPS), batch_size))
    num_groups, at_a_time = math.ceil(n / group_size), max(1, batch_size // group_size)
    means = []
    for count in in_batches(num_groups, at_a_time, progress_bar, "groups"):
        _, log_weight = sequential_rollout(dynamics, count * group_size, count, generator=generator)
        means.append(log_weight.view(count, -1).logsumexp(-1) - math.log(group_size))
    estimate = estimate_from(dynamics.target, torch.cat(means), group_size, dynamics.guide)
    if not dynamics.policy.flow.is_untouched:
        return estimate
    warning = (
        "The flow is as it was made: no loss has trained it, resampling along it does harm, and there is no interval. "
        "Train with SubTrajectoryBalance(lamda=1), say, or use method='importance'."
    )
    # What is true of any unbiased estimate, as where weights are too heavy-tailed.
    low = estimate.log_z - math.log(20)
    return replace(estimate, low=low, high=math.inf, warnings=[*estimate.warnings, warning])


def by_ode(
    dynamics: Dynamics, n: int, generator: torch.Generator | None, batch_size: int, progress_bar: bool
) -> LogZEstimate:
    """Draws of the probability flow, weighed."""
    if dynamics.measure is not None:
        raise InputError(
            "method='ode' weighs by a density of end points, and a fine-tuned sampler is weighed by paths of another: "
            "take method='importance', or product_sampler(tuned) of diffsampler.fine_tuning."
        )
    flow, summary, variance = ProbabilityFlow(dynamics), WeightSummary(n), 0.0
    for count in in_batches(n, batch_size, progress_bar):
        part = flow.sample(count, generator)
        with torch.no_grad():
            log_prob = dynamics.target.log_prob(part.x)
        summary.add(log_prob - part.log_prob)
        variance += float(part.standard_error.square().sum()) / n
    estimate, error = estimate_from(dynamics.target, summary, guide=dynamics.guide), math.sqrt(variance)
    if error == 0:
        return estimate
    warning = f"Densities are estimates, with standard errors of {error:.2g} nats that the interval does not know."
    return replace(estimate, warnings=[*estimate.warnings, warning])


Method = Callable[[Dynamics, int, torch.Generator | None, int, bool], LogZEstimate]
METHODS: dict[str, Method] = {"importance": by_importance, "smc": by_smc, "ode": by_ode}
