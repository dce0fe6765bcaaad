"""Rollbacks: trajectories from points of the target back to the prior, by P_B."""

import torch
from torch import Tensor

from diffsampler.paths.dynamics import Dynamics, State, record
from diffsampler.paths.evaluation import evaluate
from diffsampler.paths.records import Path

NUM_STATES = 1 << 18  # that are evaluated at once: densities of all of them are several arrays of their size


@torch.no_grad()
def rollback(
    dynamics: Dynamics, x: Tensor, generator: torch.Generator | None = None, times: Tensor | None = None
) -> Path:
    """Trajectories that end in x, with shape (B, D), drawn backwards by P_B.

    The path carries target values only where P_B needed them: `evaluate` adds them in one batch.

    Arguments:
        dynamics: what walks where.
        x: end points.
        generator: the source of all noise.
        times: the grid, or its last part; by default a new one.
    """
    policy = dynamics.policy
    times = dynamics.times(generator) if times is None else times
    path = dynamics.empty_path(times, len(x), policy.backward_uses_score)
    path.x[-1] = x
    embedding = policy.embed_backward(times)
    if policy.process.shares_control or policy.backward_control is not None:
        dynamics.count_network((len(times) - 1) * len(x))
    for k in reversed(range(len(times) - 1)):
        y, score = path.x[k + 1], None
        if path.score is not None:
            state = State(y, *dynamics.scored.log_prob_and_score(y), None)
            record(path, k + 1, state)
            score = state.score
        control = policy.backward_control_at(embedding[k + 1], y, score)
        if policy.process.scores_destination:
            score = dynamics.scored.log_prob_and_score(policy.process.score_point(times[k], times[k + 1], y))[1]
        path.x[k] = policy.backward_kernel(times[k], times[k + 1], y, control, score).rsample(generator)
    if path.score is not None:
        record(path, 0, State(path.x[0], *dynamics.scored.log_prob_and_score(path.x[0]), None))
    return path


@torch.no_grad()
def back_and_forth(
    dynamics: Dynamics, x: Tensor, num_steps: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Walk end points back by P_B and forth by P_F: new end points with shape (B, D), and log R with shape (B)."""
    policy, target = dynamics.policy, dynamics.target
    times = dynamics.times(generator)[-num_steps - 1 :]
    embedding = policy.embed(times)
    y = rollback(dynamics, x, generator, times).x[0]
    for k in range(len(times) - 1):
        here = dynamics.arrive(embedding[k], y)
        kernel = policy.forward_kernel(times[k], times[k + 1], y, here.control, here.score)
        y = kernel.rsample(generator)
    return y, target.log_prob(y)


@torch.no_grad()
def rolled_back_log_weight(
    dynamics: Dynamics, x: Tensor, generator: torch.Generator | None = None, batch_size: int | None = None
) -> Tensor:
    """The log-weights of trajectories rolled back from draws of the target; their mean is the EUBO.

    Evaluations are not counted: they are no part of what a run costs.

    Arguments:
        dynamics: what walks where.
        x: draws of the user's target, with shape (n, D).
        generator: the source of all noise.
        batch_size: draws rolled back at a time; by default as many as make a quarter of a million states.

    Returns:
        log w, float64, with shape (n).
    """
    apart, policy, found = dynamics.uncounted(), dynamics.policy, []
    batch_size = max(1, NUM_STATES // dynamics.grid.num_steps) if batch_size is None else batch_size
    for part in x.to(policy.device, policy.dtype).split(batch_size):
        path = rollback(apart, apart.states_at(part, generator), generator)
        found.append(evaluate(apart, path, with_flow=False).log_weight)
    return torch.cat(found)
