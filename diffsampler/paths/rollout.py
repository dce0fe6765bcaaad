"""Rollouts: trajectories from prior to target, recorded, weighted, or differentiated."""

from collections.abc import Callable
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from diffsampler.paths.dynamics import Dynamics, State, record
from diffsampler.paths.records import Path

__all__ = ["differentiable_rollout", "rollout", "weighted_rollout"]

# glibc hands freed memory back to the system at once, and takes page faults for the next step's activations, until a
# block of tens of MB was freed. This one is never touched; without it 10 000 draws take half as long again.
torch.empty(31 << 20, dtype=torch.uint8)


@torch.no_grad()
def rollout(dynamics: Dynamics, n: int, generator: torch.Generator | None = None, noise_scale: float = 1.0) -> Path:
    """n trajectories from prior to target.

    Arguments:
        dynamics: what walks where.
        n: the number B of trajectories.
        generator: the source of all noise.
        noise_scale: factor on the noise of every step, for exploration; `evaluate` gives their density under the model,
            not under this.
    """
    times, policy = dynamics.times(generator), dynamics.policy
    if dynamics.graphed is None or noise_scale != 1.0:
        return _roll_out(dynamics, n, times, generator, noise_scale)
    density = dynamics.target.density
    tensors = chain(*(part for module in (policy, density) for part in (module.parameters(), module.buffers())))
    kind = (n, len(times), policy.training, dynamics.target.needs_float64)
    return dynamics.graphed(partial(_roll_out, dynamics, n), tensors, dynamics.target, kind, times, generator)


@torch.no_grad()
def weighted_rollout(dynamics: Dynamics, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """End points and their log importance weights, float64, with shapes (n, D) and (n); no path is kept."""
    last, log_ratio = _walk(dynamics, n, dynamics.times(generator), generator, dynamics.arrive)
    log_prob = dynamics.target.log_prob(last.x) if last.log_prob is None else last.log_prob
    return last.x, dynamics.target.settled(last.x, log_prob) - log_ratio


def differentiable_rollout(dynamics: Dynamics, n: int, generator: torch.Generator | None = None) -> tuple[Path, Tensor]:
    """A rollout that carries gradients: its path, without them, and its log-weights with shape (n), with them.

    Scores inside controls are held fixed; scores inside the process's kernels are differentiated.
    """
    times = dynamics.times(generator)
    path = dynamics.empty_path(times, n, dynamics.policy.uses_score)
    last, log_ratio = _walk(dynamics, n, times, generator, dynamics.arrive_with_gradient, path)
    # By the target's own score, which a log_prob by hand may have without being differentiable itself.
    log_prob = dynamics.differentiable_target(last.x)[0] if last.log_prob is None else last.log_prob
    return path, log_prob - log_ratio


def _walk(
    dynamics: Dynamics,
    n: int,
    times: Tensor,
    generator: torch.Generator | None,
    arrive: Callable[[Tensor, Tensor, bool], State],
    path: Path | None = None,
) -> tuple[State, Tensor]:
    """The last states of a rollout, and its log-density over that of the measure, with shape (n)."""
    policy, num_steps = dynamics.policy, len(times) - 1
    embedding, backward = policy.embed(times), policy.embed_backward(times)
    here = arrive(embedding[0], policy.sample_prior(n, generator), True)
    log_ratio = dynamics.log_start(here.x)
    for k in range(num_steps):
        if path is not None:
            record(path, k, here)
        s, t = times[k], times[k + 1]
        kernel = policy.forward_kernel(s, t, here.x, here.control, here.score)
        with_control = k + 1 < num_steps or policy.process.shares_control
        there = arrive(embedding[k + 1], kernel.rsample(generator), with_control)
        log_pf = kernel.log_prob(there.x)
        log_ratio = log_ratio + dynamics.step_log_ratio(s, t, backward[k + 1], log_pf, here, there)
        here = there
    if path is not None:
        record(path, num_steps, here)
    return here, log_ratio


def _roll_out(
    dynamics: Dynamics, n: int, times: Tensor, generator: torch.Generator | None = None, noise_scale: float = 1.0
) -> Path:
    policy, num_steps = dynamics.policy, len(times) - 1
    path, embedding = dynamics.empty_path(times, n, policy.uses_score), policy.embed(times)
    x = policy.sample_prior(n, generator)
    for k in range(num_steps):
        here = dynamics.arrive(embedding[k], x)
        record(path, k, here)
        kernel = policy.forward_kernel(times[k], times[k + 1], x, here.control, here.score)
        x = kernel.rsample(generator, noise_scale)
    record(path, num_steps, dynamics.arrive(embedding[num_steps], x, with_control=False))
    return path
