"""Rollouts: trajectories from prior to target, recorded, weighted, or differentiated."""

from functools import partial
from itertools import chain

import torch
from torch import Tensor

from diffsampler.paths.dynamics import Dynamics, State
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
    policy, times = dynamics.policy, dynamics.times(generator)
    embedding, backward = policy.embed(times), policy.embed_backward(times)
    num_steps, shared = len(times) - 1, policy.process.shares_control
    here = dynamics.arrive(embedding[0], policy.sample_prior(n, generator))
    log_prior = dynamics.log_start(here.x)
    log_ratio = torch.zeros_like(log_prior)
    for k in range(num_steps):
        s, t = times[k], times[k + 1]
        kernel = policy.forward_kernel(s, t, here.x, here.control, here.score)
        there = dynamics.arrive(embedding[k + 1], kernel.rsample(generator), shared or k + 1 < num_steps)
        log_ratio = log_ratio + dynamics.step_log_ratio(s, t, backward[k + 1], kernel.log_prob(there.x), here, there)
        here = there
    log_prob = dynamics.target.log_prob(here.x) if here.log_prob is None else here.log_prob
    return here.x, dynamics.target.settled(here.x, log_prob) - log_prior - log_ratio


def differentiable_rollout(dynamics: Dynamics, n: int, generator: torch.Generator | None = None) -> tuple[Path, Tensor]:
    """A rollout that carries gradients: its path, without them, and its log-weights with shape (n), with them.

    Scores inside controls are held fixed; scores inside the process's kernels are differentiated.
    """
    policy, times = dynamics.policy, dynamics.times(generator)
    embedding, backward = policy.embed(times), policy.embed_backward(times)
    num_steps, shared = len(times) - 1, policy.process.shares_control
    path = dynamics.empty_path(times, n, policy.uses_score)
    here = dynamics.arrive_with_gradient(embedding[0], policy.sample_prior(n, generator))
    log_prior = dynamics.log_start(here.x)
    log_ratio = torch.zeros_like(log_prior)
    for k in range(num_steps):
        _record(path, k, here)
        s, t = times[k], times[k + 1]
        kernel = policy.forward_kernel(s, t, here.x, here.control, here.score)
        there = dynamics.arrive_with_gradient(embedding[k + 1], kernel.rsample(generator), shared or k + 1 < num_steps)
        log_ratio = log_ratio + dynamics.step_log_ratio(s, t, backward[k + 1], kernel.log_prob(there.x), here, there)
        here = there
    _record(path, num_steps, here)
    # By the target's own score, which a log_prob by hand may have without being differentiable itself.
    log_prob = dynamics.differentiable_target(here.x)[0] if here.log_prob is None else here.log_prob
    return path, log_prob - log_prior - log_ratio


def _roll_out(
    dynamics: Dynamics, n: int, times: Tensor, generator: torch.Generator | None = None, noise_scale: float = 1.0
) -> Path:
    policy, num_steps = dynamics.policy, len(times) - 1
    path, embedding = dynamics.empty_path(times, n, policy.uses_score), policy.embed(times)
    x = policy.sample_prior(n, generator)
    for k in range(num_steps):
        here = dynamics.arrive(embedding[k], x)
        _record(path, k, here)
        kernel = policy.forward_kernel(times[k], times[k + 1], x, here.control, here.score)
        x = kernel.rsample(generator, noise_scale)
    _record(path, num_steps, dynamics.arrive(embedding[num_steps], x, with_control=False))
    return path


def _record(path: Path, k: int, state: State) -> None:
    """Write a state into a path, without its gradients."""
    path.x[k] = state.x.detach()
    if path.score is not None:
        path.log_prob[k], path.score[k] = state.log_prob.detach(), state.score.detach()
