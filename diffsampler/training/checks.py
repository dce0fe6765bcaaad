"""What must be right before training costs anything."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from diffsampler.baseline.propriety import check_proper
from diffsampler.baseline.unbounded import unbounded
from diffsampler.coordinates import FoundCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError
from diffsampler.fingerprint import differences
from diffsampler.paths import Path, rollout
from diffsampler.repeatable import check_repeatable, naming_the_target
from diffsampler.sampler import Sampler
from diffsampler.target import support_of

CHECK_POINTS = 256


def check_precision(trainer: L.Trainer) -> None:
    """Raise InputError where densities and the target would be rounded, as networks may be."""
    if torch.is_autocast_enabled(trainer.strategy.root_device.type):
        raise InputError(
            "torch.autocast must be off: log-weights need full precision. For networks in bfloat16 take "
            "control=ReducedPrecision, a wrapper."
        )
    if str(trainer.precision) not in {"32-true", "64-true"}:
        raise InputError(
            f"trainer.precision must be 32-true or 64-true, got {trainer.precision}: log-weights need it. For "
            "networks in bfloat16 take control=ReducedPrecision, a wrapper."
        )


def check_trainer(trainer: L.Trainer) -> None:
    """Raise InputError if a sampler cannot be trained so; to be called before the target has cost anything."""
    check_precision(trainer)
    for name in ("max_steps", "max_epochs"):
        if getattr(trainer, name) == 0:
            raise InputError(f"trainer.{name} must be at least 1, or -1 for no limit, got 0: nothing would be trained.")
    if trainer.limit_train_batches == 0:
        raise InputError("trainer.limit_train_batches must be above 0, got 0: nothing would be trained.")


def check_loss(name: str, loss: Any) -> None:
    """Raise InputError if what a step has returned can be no loss; without looking at its value."""
    what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    if not isinstance(loss, Tensor) or loss.shape != ():
        raise InputError(f"loss {name} must return one number, a tensor with shape (), got {what}.")
    if not loss.requires_grad:
        raise InputError(
            f"loss {name} must return a tensor with a gradient to the parameters, got one without: was something "
            "detached, or computed under torch.no_grad?"
        )


def check_target(sampler: Sampler, generator: torch.Generator) -> None:
    """One small rollout before training: raise InputError if the target is usable nowhere that the sampler goes.

    Or if it has no integral, unless the search has asked already, or states are angles, which it must know of.
    """
    name = sampler.target.known_as
    sampler.check_angles()
    for part, parameter in sampler.policy.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(f"the sampler's {part} is not finite: make the sampler anew, or load another checkpoint.")
    with naming_the_target(sampler.target, f"Rolling out the first {CHECK_POINTS} trajectories"):
        path = rollout(sampler.dynamics, CHECK_POINTS, generator)
        _check_states(sampler, path)
        if not sampler.target.has_density:
            return
        x = path.x[-1]
        check_repeatable(sampler.counter, x)
        log_prob = sampler.counter.log_prob(x)
    if log_prob.isnan().all():
        raise InputError(f"{name}.log_prob is NaN at all {CHECK_POINTS} points where the sampler starts.")
    if not log_prob.isfinite().any():
        raise InputError(
            f"{name}.log_prob is not finite at any of {CHECK_POINTS} points where the sampler starts; "
            "move or scale the target, or the process, so that they meet."
        )
    # A reward on another sampler's draws need have no integral, nor what a search has asked already, nor angles.
    is_searched = isinstance(sampler.coordinates, FoundCoordinates) and sampler.coordinates.is_found
    if sampler.measure is None and not is_searched and sampler.policy.process.space.is_euclidean:
        if sampler.family is not None:
            sampler, x = _one_member(sampler, x)
        z, coordinates, onto = sampler.policy.process.position(x), sampler.coordinates, support_of(sampler.target)
        if coordinates is not None and coordinates.dim != sampler.target.dim:
            counter = CountedTarget(sampler.density)  # flat in x along what the coordinates leave out
        else:
            z = z if coordinates is None else coordinates(z)[0]
            counter = CountedTarget(sampler.target)
        with unbounded(counter):
            check_proper(counter, z if onto is None else onto.inverse(z.double()))
        sampler.counter.num_evaluations += counter.num_evaluations


def _one_member(sampler: Sampler, x: Tensor) -> tuple[Sampler, Tensor]:
    """The sampler of the first context in states of a family, and the states of that."""
    dim = sampler.family.dim
    pairs = x if sampler.coordinates is None else sampler.coordinates(x)[0]
    first = (pairs[:, dim:] == pairs[0, dim:]).all(-1)
    return sampler.given(pairs[0, dim:]), x[first]


def _check_states(sampler: Sampler, path: Path) -> None:
    """Raise InputError where every trajectory has left all numbers, though the target has not."""
    lost = ~path.x.isfinite().all(-1)
    if not lost[-1].all():
        return
    step, process = int(lost.any(-1).nonzero()[0]), type(sampler.policy.process).__name__
    known = "" if path.log_prob is None or step == 0 else f", where log_prob is {float(path.log_prob[step - 1, 0]):.4g}"
    raise InputError(
        f"no state of the sampler is finite at the end: the first is lost at step {step}{known}. The control, "
        f"{type(sampler.policy.control).__name__}, or the kernels of the process, {process}, return what is not finite."
    )


def check_resumption(checkpoint: dict[str, Any], sampler: Sampler, trainer: L.Trainer) -> None:
    """Raise InputError where a run cannot go on from a checkpoint."""
    if "generators" not in checkpoint:
        raise InputError("This checkpoint was not written by diffsampler fit.")
    if found := differences(checkpoint.get("parts", {}), sampler.describe()):
        raise InputError(f"The checkpoint is of a sampler made otherwise: {found}.")
    step, last = checkpoint["global_step"], trainer.max_steps
    if trainer.state.fn == "fit" and 0 <= last <= step:
        raise InputError(f"Nothing to train: the checkpoint is at step {step} already. Raise max_steps, {last} now.")
