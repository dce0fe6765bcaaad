"""Rollouts: trajectories from prior to target, recorded, weighted, or differentiated."""

from dataclasses import replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from diffsampler.networks.tape import taped
from diffsampler.paths.dynamics import Dynamics, record
from diffsampler.paths.evaluation import evaluate
from diffsampler.paths.records import Path, Trajectory

# glibc hands freed memory back to the system at once, and takes page faults for the next step's activations, until a
# block of tens of MB was freed. This one is never touched; without it 10 000 draws take half as long again.
torch.empty(31 << 20, dtype=torch.uint8)


@torch.no_grad()
def rollout(
    dynamics: Dynamics,
    n: int,
    generator: torch.Generator | None = None,
    noise_scale: float = 1.0,
    keep_activations: bool = False,
) -> Path:
    """n trajectories from prior to target.

    Arguments:
        dynamics: what walks where.
        n: the number B of trajectories.
        generator: the source of all noise.
        noise_scale: factor on the noise of every step, for exploration; `evaluate` gives their density under the model,
            not under this.
        keep_activations: whether the path carries what the control's perceptrons have computed, for one `evaluate`,
            whose result can then be differentiated once: on a CPU, and where there is room for it.
    """
    times, policy = dynamics.times(generator), dynamics.policy
    dynamics.count_network((len(times) - 1) * n)
    if keep_activations and dynamics.keeps_activations(len(times) * n):
        with taped(policy.control, len(times) - 1, n) as tapes:
            return replace(_roll_out(dynamics, n, times, generator, noise_scale), tapes=tapes)
    if dynamics.graphed is None or noise_scale != 1.0:
        return _roll_out(dynamics, n, times, generator, noise_scale)
    scored = dynamics.scored  # all that a rollout asks
    tensors = chain(*(part for module in (policy, scored.density) for part in (module.parameters(), module.buffers())))
    kind = (n, len(times), policy.training, scored.needs_float64)
    return dynamics.graphed(partial(_roll_out, dynamics, n), tensors, scored, kind, times, generator)


@torch.no_grad()
def weighted_rollout(dynamics: Dynamics, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """End points and their log importance weights, float64, with shapes (n, D) and (n); no path is kept."""
    times, policy, target = dynamics.times(generator), dynamics.policy, dynamics.target
    embedding, backward = policy.embed(times), policy.embed_backward(times)
    here = dynamics.arrive(embedding[0], policy.sample_prior(n, generator))
    log_ratio = dynamics.log_start(here.x)
    last, shared = len(times) - 1, policy.process.shares_control
    for k in range(last):
        s, t = times[k], times[k + 1]
        kernel = policy.forward_kernel(s, t, here.x, here.control, here.score)
        there = dynamics.arrive(embedding[k + 1], kernel.rsample(generator), shared or k + 1 < last)
        log_pb = dynamics.log_backward(s, t, backward[k + 1], here, there)
        # Not in place: what a prior has returned is its own.
        log_ratio = log_ratio + kernel.log_prob(there.x) - log_pb
        here = there
    log_prob = target.log_prob(here.x) if here.log_prob is None else here.log_prob
    return here.x, target.settled(here.x, log_prob) - log_ratio


def differentiable_rollout(dynamics: Dynamics, n: int, generator: torch.Generator | None = None) -> Trajectory:
    """The densities of a rollout, with gradients through its states; its path is without.

    Scores inside controls are held fixed; scores inside the process's kernels are differentiated.
    """
    times, policy, target = dynamics.times(generator), dynamics.policy, dynamics.target
    embedding, last, asks_all = policy.embed(times).unbind(), len(times) - 1, policy.uses_score
    guided = asks_all and dynamics.guide is not None
    states, values, scores, controls = [policy.sample_prior(n, generator)], [], [], []
    for k, x in enumerate(states):  # which grow on the way
        if k == last or (asks_all and not guided):
            values.append(_values_with_gradient(dynamics, x))
        if asks_all:
            scores.append(dynamics.guide.log_prob_and_score(x.detach())[1] if guided else values[-1][1])
        score = scores[-1] if asks_all else None
        if k < last or policy.process.shares_control:
            controls.append(policy.control(embedding[k], x, None if score is None else score.detach()))
        if k < last:
            kernel = policy.forward_kernel(times[k], times[k + 1], x, controls[k], score)
            states.append(kernel.rsample(generator))
    log_prob, score = map(torch.stack, zip(*values, strict=True))
    if not policy.process.uses_score:
        target.count_values(log_prob, score)
        # By the target's own score, which a log_prob by hand may have without being differentiable itself.
        log_prob = torch.cat([log_prob[:-1], (log_prob[-1] + ((x - x.detach()) * score[-1]).sum(-1))[None]])
    dynamics.count_network(len(controls) * n)
    path = Path(times, torch.stack(states), log_prob, torch.stack(scores) if asks_all else None)
    trajectory = evaluate(dynamics, path, with_flow=False, control=torch.stack(controls))
    return replace(trajectory, path=path.detach())


def _values_with_gradient(dynamics: Dynamics, x: Tensor) -> tuple[Tensor, Tensor]:
    """log R and score at x, with shapes (B) and (B, D), differentiable where kernels use the score."""
    if dynamics.policy.process.uses_score:
        return dynamics.target.differentiable_log_prob_and_score(x)
    return dynamics.target.ask(x.detach())


def _roll_out(
    dynamics: Dynamics, n: int, times: Tensor, generator: torch.Generator | None = None, noise_scale: float = 1.0
) -> Path:
    policy, num_steps = dynamics.policy, len(times) - 1
    path, embedding = dynamics.empty_path(times, n, policy.uses_score), policy.embed(times)
    x = policy.sample_prior(n, generator)
    for k in range(num_steps):
        here = dynamics.ask(embedding[k], x)
        record(path, k, here)
        kernel = policy.forward_kernel(times[k], times[k + 1], x, here.control, here.score)
        x = kernel.rsample(generator, noise_scale)
    record(path, num_steps, dynamics.ask(embedding[num_steps], x, with_control=False))
    if path.log_prob is not None:
        dynamics.target.count_values(path.log_prob, path.score)
    return path
