"""How probable trajectories are: the densities of paths from anywhere, in one batched pass."""

import sys
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffsampler.networks.tape import replayed
from diffsampler.paths.dynamics import Dynamics
from diffsampler.paths.records import Path, Trajectory
from diffsampler.spaces.kernels import Kernel

# Rows (steps x trajectories) of one piece of the batched pass: on a CPU, activations of this many stay in cache.
CPU_CHUNK_ROWS = 6400
# On other devices one piece is fastest, but the activations of a piece are there together when it is computed again.
CHECKPOINTED_ROWS = 1 << 18


def evaluate(dynamics: Dynamics, path: Path, with_flow: bool = True, control: Tensor | None = None) -> Trajectory:
    """The densities of a path under the current model, with gradients to its parameters.

    Target values that the path does not carry are evaluated here, in one batch.

    Arguments:
        dynamics: the model, and the target.
        path: states, from anywhere.
        with_flow: whether to evaluate the flow too, and with it what it needs of the target.
        control: what the control says at the states, with shape (T, B, D), if it is known; (T + 1, B, D) where the
            process shares it.
    """
    policy = dynamics.policy
    with_flow = with_flow and policy.flow is not None
    log_prob, score = _target_values(dynamics, path, with_flow and policy.flow.uses_interpolation)
    s, t = path.times[:-1, None, None], path.times[1:, None, None]
    x, y = path.x[:-1], path.x[1:]
    score_x, score_y = _at(score, slice(-1)), _at(score, slice(1, None))
    in_chunks = partial(_in_chunks, checkpointed=dynamics.is_checkpointed(path.x[..., 0].numel()))
    if control is None:
        asked = slice(None if policy.process.shares_control else -1)
        if not path.tapes:  # else the rollout has computed it, and only gradients are left
            dynamics.count_network(path.x[asked, :, 0].numel())
        with replayed(path.tapes or {}):
            control = in_chunks(policy.control, policy.embed(path.times[asked]), path.x[asked], _at(score, asked))
    forward, backward = control[: len(x)], control[1:] if policy.process.shares_control else None
    if policy.backward_control is not None and dynamics.measure is None:
        fixed = None if score_y is None else score_y.detach()
        dynamics.count_network(y[..., 0].numel())
        backward = in_chunks(policy.backward_control, policy.embed_backward(path.times[1:]), y, fixed)
    log_flow = None
    if with_flow:
        log_flow = x.new_empty(0, x.shape[1])
        if len(path.times) > 2:
            inner, at = path.x[1:-1], path.times[1:-1]
            interpolation = policy.interpolation(at[:, None], inner, log_prob[1:-1])
            log_flow = in_chunks(policy.flow, policy.flow.embed(at.to(policy.dtype)), inner, interpolation)
    if dynamics.measure is None:
        log_pb = policy.backward_kernel(s, t, y, backward, policy.backward_score(score_x, score_y)).log_prob(x)
    else:
        log_pb = dynamics.log_measure(s, t, x, y, None if score_x is None else score_x.detach())
    return Trajectory(
        log_pf=policy.forward_kernel(s, t, x, forward, score_x).log_prob(y).double(),
        log_pb=log_pb.double(),
        log_prior=dynamics.log_start(path.x[0]),
        log_prob=log_prob[-1].double(),
        log_z=policy.log_z_at(path.x[0]),
        log_flow=None if log_flow is None else log_flow.double(),
        path=path,
        context=policy.process.context_of(path.x[0]),
    )


def kernel_at(dynamics: Dynamics, times: Tensor, step: Tensor, x: Tensor, score: Tensor | None = None) -> Kernel:
    """P_F at the starts of single transitions, of states with shape (n, 1, D), with gradients.

    Arguments:
        dynamics: the model, and the target.
        times: the grid.
        step: the transitions' steps, in [0, T), with shape (n).
        x: their starts, with shape (n, D).
        score: that networks take there, where it is known.
    """
    policy = dynamics.policy
    # As n times of one trajectory each: what kernels and networks take.
    s, t, x = times[step, None, None], times[step + 1, None, None], x.unsqueeze(1)
    if not policy.uses_score:
        score = None
    elif score is not None:
        score = score.unsqueeze(1)
    else:
        with torch.no_grad():
            score = dynamics.scored.log_prob_and_score(x)[1]
    embedding = policy.embed(times[:-1])[step].unsqueeze(1)
    dynamics.count_network(len(step))
    return policy.forward_kernel(s, t, x, policy.control(embedding, x, score), score)


def log_pf_of(dynamics: Dynamics, path: Path, step: Tensor, row: Tensor) -> Tensor:
    """log P_F of single transitions of a path, with shape (n), by their steps in [0, T) and trajectories in [0, B)."""
    score = None if path.score is None else path.score[step, row]
    kernel = kernel_at(dynamics, path.times, step, path.x[step, row], score)
    return kernel.log_prob(path.x[step + 1, row].unsqueeze(1)).double().squeeze(1)


def log_uncontrolled_backward(dynamics: Dynamics, path: Path) -> Tensor:
    """log P_B of every step without its control, float64, with shape (T, B)."""
    process = dynamics.policy.process
    s, t = path.times[:-1, None, None], path.times[1:, None, None]
    y, score = path.x[1:], None
    if process.uses_score:
        _, score = _target_values(dynamics, path, everywhere=False)
        score = dynamics.policy.backward_score(score[:-1], score[1:])
    return process.backward_kernel(s, t, y, torch.zeros_like(y), score).log_prob(path.x[:-1]).double()


def _target_values(dynamics: Dynamics, path: Path, everywhere: bool) -> tuple[Tensor, Tensor | None]:
    """log R, with shape (T + 1, B) or, unless it is wanted everywhere, (1, B), and the score if it is used."""
    log_prob, score = path.log_prob, path.score if dynamics.policy.uses_score else None
    with torch.no_grad():
        if dynamics.policy.uses_score and score is None:
            found, score = dynamics.scored.log_prob_and_score(path.x)
            log_prob = found if dynamics.guide is None else log_prob
        if log_prob is None or (everywhere and len(log_prob) == 1):
            log_prob = dynamics.target.log_prob(path.x if everywhere else path.x[-1:])
    return log_prob, score


def _at(values: Tensor | None, part: slice) -> Tensor | None:
    return None if values is None else values[part]


def _in_chunks(network: nn.Module, embedding: Tensor, x: Tensor, more: Tensor | None, checkpointed: bool) -> Tensor:
    """The network at all states, with shape (K, B, *), for an embedding with shape (K, E)."""
    size = max(1, _chunk_rows(x.device, checkpointed) // x.shape[1])
    parts = [slice(start, start + size) for start in range(0, len(x), size)]
    call = partial(checkpoint, network, use_reentrant=False) if checkpointed else network
    embedding = embedding.unsqueeze(1)
    return torch.cat([call(embedding[part], x[part], None if more is None else more[part]) for part in parts])


def _chunk_rows(device: torch.device, checkpointed: bool) -> int:
    if device.type == "cpu":
        return CPU_CHUNK_ROWS
    return CHECKPOINTED_ROWS if checkpointed else sys.maxsize
