"""What parts must return: asked once for two states, so that a mistake is named here and not inside of a rollout."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError
from diffsampler.policy import Policy
from diffsampler.processes import Process
from diffsampler.repeatable import differ
from diffsampler.spaces.kernels import Kernel

NUM_AROUND = 8
ALIKE, NEGLIGIBLE = 1e-5, 1e-3  # relative to a value, and in nats


@torch.no_grad()
def check_parts(policy: Policy) -> None:
    """Ask each part of a user's own, and every control, since one may be made for another process.

    Raises:
        InputError: naming the part that returns something else than it must, or raises.
    """
    x = torch.zeros(2, policy.dim, dtype=policy.dtype, device=policy.device)
    generator = torch.Generator(policy.device).manual_seed(0)
    ask, states, numbers = partial(_ask, policy.dim), (2, policy.dim), (2,)
    process, prior, flow = policy.process, policy.process.prior, policy.flow
    if _is_own(prior):
        name = f"prior {type(prior).__name__}"
        ask(f"{name}.draw", lambda: prior.draw(x, generator), states)
        ask(f"{name}.log_prob", lambda: prior.log_prob(x), numbers)
        ask(f"{name}.score", lambda: prior.score(x), states)
    if _is_own(process):
        v = x if process.shares_control or process.learns_backward else None
        s, t = torch.tensor([0.25, 0.5], dtype=torch.float64, device=policy.device)
        for method, call in (
            ("forward_kernel", lambda: process.forward_kernel(s, t, x, x, x)),
            ("backward_kernel", lambda: process.backward_kernel(s, t, x, v, x)),
        ):
            name = f"process {type(process).__name__}.{method}"
            kernel = ask(name, call)
            ask(f"{name}(...).rsample", lambda kernel=kernel: kernel.rsample(generator), states)
            ask(f"{name}(...).log_prob", lambda kernel=kernel: kernel.log_prob(x), numbers)
    for name in ("control", "backward_control"):
        control = getattr(policy, name)
        if control is not None:
            ask(
                f"{name} {type(control).__name__}",
                _at_half_time(control, x, x),
                states,
                (2, 2 * policy.dim),
            )
    if flow is not None and _is_own(flow):
        ask(f"flow {type(flow).__name__}", _at_half_time(flow, x, x[:, 0]), numbers)


@torch.no_grad()
def check_periodic(target: CountedTarget, process: Process) -> None:
    """Ask a target that declares nothing whether it is the same once around, where a process takes it to be of angles.

    Arguments:
        target: the density of x.
        process: which walks in its coordinates.

    Raises:
        InputError: if its log_prob is another one at x and at x + 2 pi.
    """
    is_angle = process.space.angles[: target.dim]
    if target.density.user_target.space is not None or not is_angle.any():
        return
    own = next(target.density.buffers(), next(target.density.parameters(), torch.empty(0)))
    noise = torch.rand(NUM_AROUND, target.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = math.pi * (2 * noise - 1)
    here, there = (target.log_prob(at.to(own.device)) for at in (x, x + 2 * math.pi * is_angle))
    known = here.isfinite() & there.isfinite()  # zero density outside of one period is a way to say which
    here, there = here[known], there[known]
    if differ(here, there, NEGLIGIBLE, max(ALIKE, 1e3 * target.rounding)):
        k = int((here - there).abs().argmax())
        raise InputError(
            f"process {type(process).__name__} walks on angles, but {target.name}.log_prob is {float(here[k]):.6g} at "
            f"some x and {float(there[k]):.6g} at x + 2 pi: take another process for reals, such as PinnedBrownian, "
            "declare by periodic which coordinates are angles, of period 2 pi, or return -inf outside of [-pi, pi)."
        )


def _at_half_time(network: Any, x: Tensor, *more: Tensor) -> Callable[[], Any]:
    return lambda: network(network.embed(x[:1, 0] + 0.5)[0], x, *more)


def _is_own(part: object) -> bool:
    return not type(part).__module__.startswith("diffsampler.")


def _ask(dim: int, name: str, call: Callable[[], Any], *shapes: tuple[int, ...]) -> Any:
    """What a call returns, a tensor of one of these shapes, or a kernel where there are none."""
    try:
        found, error = call(), None
        what = f"it returns shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"it returns {found!r}"
    except Exception as raised:
        found, error = None, raised
        what = f"it raises {type(error).__name__}: {' '.join(str(error).split())}"
    if tuple(found.shape) in shapes if isinstance(found, Tensor) else isinstance(found, Kernel) and not shapes:
        return found
    wanted = f"shape ({', '.join(['*', *map(str, shapes[0][1:])])})" if shapes else "a Kernel"
    widths = ", or twice that with widths," if len(shapes) > 1 else ""
    raise InputError(
        f"{name} must return {wanted}{widths} for states of shape (*, {dim}), here two of them: {what:.200}."
    ) from error
