"""Sequential Monte Carlo along the learned flow: populations that are resampled on the way."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffsampler.density import or_zero_density
from diffsampler.errors import InputError, check_count
from diffsampler.log_z.resampling import resample_groups
from diffsampler.paths.dynamics import Dynamics, State, record
from diffsampler.paths.records import Path


@torch.no_grad()
def sequential_rollout(
    dynamics: Dynamics,
    n: int,
    num_groups: int = 1,
    ess_threshold: float = 0.5,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Sequential Monte Carlo with the learned flows as intermediate targets: end points and their log-weights.

    Where weights become uneven, light trajectories are dropped and heavy ones go on twice. E[exp(log_weight)] = Z for
    any flow, as without; a good one makes the weights more even.

    References:
        Sequential Controlled Langevin Diffusions, Chen et al., 2025, arXiv:2412.07081.
        Sequential Monte Carlo samplers, Del Moral, Doucet & Jasra, 2006.

    Arguments:
        dynamics: what walks where; its policy must have a flow.
        n: the number of trajectories, a multiple of `num_groups`.
        num_groups: groups that know nothing of each other: their mean weights are independent.
        ess_threshold: a group is resampled where its effective sample size falls below this share of it.
        generator: the source of all noise.

    Returns:
        States with shape (n, D) and log-weights, float64, with shape (n).
    """
    if n % check_count("num_groups", num_groups):
        raise InputError(f"n must be a multiple of num_groups, got {n} and {num_groups}.")
    return _walk(dynamics, n, dynamics.times(generator), num_groups, ess_threshold, generator)


@torch.no_grad()
def resampled_rollout(
    dynamics: Dynamics, n: int, ess_threshold: float = 0.5, generator: torch.Generator | None = None
) -> Path:
    """The paths that n trajectories have come by if they are resampled as in `sequential_rollout`, and at the end.

    Those of trajectories that were dropped are not among them.
    """
    times = dynamics.times(generator)
    path, ancestors = dynamics.empty_path(times, n, dynamics.policy.uses_score), []
    _, log_weight = _walk(dynamics, n, times, 1, ess_threshold, generator, partial(record, path), ancestors.append)
    rows, _ = resample_groups(log_weight, 1, ess_threshold, generator)
    for k in reversed(range(len(times))):
        for states in (path.x, path.log_prob, path.score):
            if states is not None:
                states[k] = states[k, rows]
        if k > 1:  # from the states of step k to those of k - 1 that they came from
            rows = ancestors[k - 2][rows]
    return path


def _walk(
    dynamics: Dynamics,
    n: int,
    times: Tensor,
    num_groups: int,
    ess_threshold: float,
    generator: torch.Generator | None,
    record_state: Callable[[int, State], None] = lambda k, state: None,
    record_rows: Callable[[Tensor], None] = lambda rows: None,
) -> tuple[Tensor, Tensor]:
    """End points and log-weights; who records is told of every state, and which rows of it go on."""
    policy, target, flow = dynamics.policy, dynamics.target, dynamics.policy.flow
    if flow is None:
        raise InputError(
            "Sequential Monte Carlo goes along the flow, but the sampler has flow=None. Use method='importance', or "
            "pass flow=ForwardLookingFlow and train it, with SubTrajectoryBalance for one."
        )
    embedding, backward = policy.embed(times), policy.embed_backward(times)
    flow_embedding = flow.embed(times.to(policy.dtype))
    num_steps, shared = len(times) - 1, policy.process.shares_control
    here = dynamics.arrive(embedding[0], policy.sample_prior(n, generator))
    record_state(0, here)
    log_flow = dynamics.log_start(here.x)
    log_weight = torch.zeros_like(log_flow)
    for k in range(num_steps):
        s, t, at_end = times[k], times[k + 1], k + 1 == num_steps
        kernel = policy.forward_kernel(s, t, here.x, here.control, here.score)
        there = dynamics.arrive(embedding[k + 1], kernel.rsample(generator), shared or not at_end)
        record_state(k + 1, there)
        log_ratio = kernel.log_prob(there.x).double() - dynamics.log_backward(s, t, backward[k + 1], here, there)
        log_prob = there.log_prob
        if log_prob is None and (at_end or flow.uses_interpolation):
            log_prob = target.log_prob(there.x)
        if at_end:
            log_next = target.settled(there.x, log_prob)
        else:
            log_next = policy.log_flow(flow_embedding[k + 1], t, there.x, log_prob)
        log_weight = or_zero_density(log_weight + log_next.double() - log_flow - log_ratio)
        if at_end:
            break
        rows, log_weight = resample_groups(log_weight, num_groups, ess_threshold, generator)
        here, log_flow = there.take(rows), log_next[rows].double()
        record_rows(rows)
    return there.x, log_weight
