"""A pretrained sampler under a reward: its draws, weighed by that, and networks that learn to draw so."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from diffsampler.baseline import Independent
from diffsampler.coordinates import (
    Coordinates,
    FixedCoordinates,
    FoundCoordinates,
    RewardCoordinates,
    SearchedCoordinates,
)
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.estimation import estimate_from
from diffsampler.log_z import LogZEstimate, estimate_log_z
from diffsampler.log_z.ratio import estimate_ratio
from diffsampler.log_z.resampling import systematic
from diffsampler.log_z.verdict import NOTICEABLE
from diffsampler.networks import StateFlow
from diffsampler.paths import ForwardMeasure, PathMeasure, weighted_rollout
from diffsampler.processes import Process
from diffsampler.progress import in_batches
from diffsampler.recipes import FineTuning, Parts
from diffsampler.recipes.fine_tuning import LR_FROM_MIXTURE
from diffsampler.repeatable import naming_the_target
from diffsampler.rewards import Product, Reward
from diffsampler.sampler import Sampler
from diffsampler.target import Target
from diffsampler.training.fit import fit

NUM_TILTING = 40_000  # draws of the pretrained sampler
NUM_AT_ONCE = 10_000


def mean_reward(
    sampler: Sampler, reward: Target, num_samples: int = 20_000, seed: int = 0, weighted: bool = True
) -> Independent:
    """log of the mean of a reward, by a pretrained sampler's draws: what a fine-tuned one is assessed beside.

    Over the density that the sampler was trained on, by its weights. A fine-tuned sampler estimates the mean over what
    the sampler draws, without them: a warning says so where both differ by 0.05 nats and both half-widths.

    Arguments:
        sampler, reward: as in `fine_tuned`.
        num_samples: draws.
        seed: of all noise.
        weighted: False for the mean over draws as they are.

    Raises:
        InputError: if they do not fit together, or the reward is zero or not finite at all draws.
    """
    target = _reward_on(sampler, reward)
    generator = torch.Generator(sampler.device).manual_seed(check_count("seed", seed, minimum=0))
    x, log_weight = sampler.sample(num_samples, return_log_weights=True, generator=generator)
    counter = CountedTarget(target)
    with torch.no_grad(), naming_the_target(reward, "The mean reward"):
        log_reward = torch.cat([counter.log_prob(part) for part in x.split(NUM_AT_ONCE)])
    estimate = estimate_from(counter, log_reward)
    if weighted:
        as_drawn, log_reward = estimate, log_reward + log_weight
        estimate = estimate_ratio(log_reward, log_weight, counter.num_evaluations, counter.num_invalid)
        _warn_of_difference(as_drawn, estimate)
    log_reward = torch.where(log_reward.isfinite(), log_reward, -math.inf)
    num_draws = max(1, int(estimate_log_z(log_reward).ess * num_samples))
    return Independent(estimate, x[systematic(log_reward, num_draws, generator)])


def _warn_of_difference(as_drawn: LogZEstimate, weighted: LogZEstimate) -> None:
    """Where the pretrained sampler is not even enough for fine-tuning to be of its density."""
    apart = as_drawn.log_z - weighted.log_z
    if abs(apart) > max(NOTICEABLE, weighted.high - weighted.log_z + as_drawn.high - as_drawn.log_z):
        warnings.warn(
            f"The pretrained sampler's draws as they are have another mean reward than its density, {apart:+.3f} nats, "
            "and that is what a fine-tuned one estimates. Train the pretrained one longer, or take "
            "product_sampler(tuned), which weighs by both densities.",
            stacklevel=3,
        )


def _tilt(tuned: Sampler, seed: int) -> bool:
    """Let a control that knows a mixture lead to that of draws weighed by the reward; False where there is none."""
    coordinates = tuned.coordinates
    while isinstance(coordinates, FixedCoordinates):  # several where it was fine-tuned before
        coordinates = coordinates.coordinates
    if not isinstance(coordinates, SearchedCoordinates) or coordinates.mixture is None:
        return False
    generator = torch.Generator(tuned.device).manual_seed(check_count("seed", seed, minimum=0))
    drawn = [weighted_rollout(tuned.dynamics, count, generator) for count in in_batches(NUM_TILTING, NUM_AT_ONCE)]
    z, log_weight = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    usable = log_weight.isfinite()
    if usable.any():
        coordinates.mixture = coordinates.mixture.tilted(z[usable], log_weight[usable])
    return bool(usable.any())


def fine_tuned(
    sampler: Sampler, reward: Target, flow: StateFlow | Callable[[Process], StateFlow] | None = None
) -> Sampler:
    """A sampler of p(x) R(x) / Z, for the law p of another one's draws and a reward R; before any training.

    It begins with the other one's networks, and leaves that as it is. Weights compare its paths with those that the
    other one would take: E[w] is Z, the mean reward over draws of p, whatever it has learned. What trains it by `fit`
    is relative trajectory balance, or any other balance loss. To load one: `load_checkpoint`, of one made like this.

    References:
        Amortizing intractable inference in diffusion models, Venkatraman et al., 2024, arXiv:2405.20971.

    Arguments:
        sampler: pretrained, of one density. Its control may use the score, which stays that of the density it was
            trained on (`Sampler.guide`), inside the new control too; its process may not.
        reward: R >= 0; log R is its `log_prob`. It need have no integral.
        flow: the state flow, relative to the pretrained paths, for losses that use one.

    Raises:
        InputError: if they do not fit together.
    """
    target = _reward_on(sampler, reward)
    _warn_of_initial_networks(sampler)
    measure = ForwardMeasure(_copy_of(sampler).policy)
    return _with_networks_of(sampler, target, flow, RewardCoordinates, measure)


def fine_tune(sampler: Sampler, reward: Target, max_steps: int = 2000, seed: int = 0, **options: Any) -> Sampler:
    """`fine_tuned`, trained.

    Arguments:
        sampler, reward: as in `fine_tuned`.
        max_steps, seed: of training.
        options: any other of `fit`. The loss is by default that of `diffsampler.recipes.FineTuning`.

    Returns:
        A new sampler; its log Z is the log of the mean reward.

    Raises:
        InputError: if something does not fit together, or training diverges.
    """
    tuned = fine_tuned(sampler, reward)
    if _tilt(tuned, seed):
        tuned.recipe = FineTuning(tuned.recipe.pretrained, LR_FROM_MIXTURE)
    with torch.inference_mode(False):
        fit(tuned, max_steps, seed, **options)
    return tuned


def product_sampler(tuned: Sampler) -> Sampler:
    """A sampler of the density p(x) R(x) itself, with the networks of a fine-tuned one; before further training.

    Its weights are by both densities: log Z is that of the integral of their product, however uneven the pretrained
    sampler was. `reference(sampler.target)` stands beside it, and `fit` trains it on.

    Arguments:
        tuned: by `fine_tune` or `fine_tuned`; it is left as it is.

    Raises:
        InputError: if it is another sampler, or one of a pretrained sampler that was fine-tuned itself.
    """
    check_instance("tuned", tuned, Sampler, "fine_tune(pretrained, reward)")
    reward = tuned.target
    if type(reward) is not Reward:
        raise InputError("product_sampler is for a sampler by fine_tune or fine_tuned.")
    if isinstance(reward.prior, Reward) and not isinstance(reward.prior, Product):
        raise InputError(
            "The pretrained sampler was fine-tuned itself, and knows no density of its draws: fine-tune the first one "
            "by the sum of both log-rewards."
        )
    guide = reward.guide if tuned.policy.uses_score else None
    product = Product(reward.prior, reward.given, guide)
    found = _with_networks_of(tuned, product, None, lambda of_reward: FixedCoordinates(of_reward.coordinates))
    found.was_trained = tuned.was_trained
    return found


def _with_networks_of(
    sampler: Sampler,
    target: Reward,
    flow: StateFlow | Callable[[Process], StateFlow] | None,
    seen_as: Callable[[Coordinates], Coordinates],
    measure: PathMeasure | None = None,
) -> Sampler:
    """A sampler of copies of another's process, networks and coordinates, where and in which precision those are."""
    start = _copy_of(sampler)
    policy, coordinates = start.policy, start.coordinates
    is_converted = (sampler.device.type, sampler.dtype) != ("cpu", torch.get_default_dtype())
    if is_converted:
        for part in (policy, *([] if coordinates is None else [coordinates])):
            part.to("cpu", torch.get_default_dtype())  # as what is made is asked to fit
    seen = None if coordinates is None else seen_as(coordinates)
    parts = Parts(policy.process, policy.control, flow, start.grid, seen)
    made = Sampler(target, **parts._asdict(), backward_control=policy.backward_control, measure=measure)
    made.recipe = FineTuning(parts)
    if made.dtype != sampler.dtype:  # of parts alone: tensors of targets are the user's
        for part in (made.policy, made.measure, made.coordinates):
            if part is not None:
                part.to(sampler.dtype)
    if made.device != sampler.device:
        made.to(sampler.device)
    if made.guide is not None:
        made.guide.density.needs_float64 = sampler.dynamics.scored.needs_float64
    for name in ("process", "control", "backward_control"):
        part = getattr(sampler.policy, name)
        if part is not None:  # in all its digits
            getattr(made.policy, name).load_state_dict(part.state_dict())
    if is_converted and coordinates is not None:
        coordinates.load_state_dict(sampler.coordinates.state_dict())
    return made


def _copy_of(sampler: Sampler) -> Sampler:
    """One with networks and coordinates of its own, of the same densities."""
    shared = [sampler.target] if sampler.guide is None else [sampler.target, sampler.guide.density.user_target]
    return copy.deepcopy(sampler, {id(target): target for target in shared})


def _warn_of_initial_networks(sampler: Sampler) -> None:
    """Where nothing was searched, and no step was made on networks that there are: weights from elsewhere may be."""
    is_start = isinstance(sampler.coordinates, FoundCoordinates) or isinstance(sampler.target, Reward)
    if sampler.was_trained or is_start or next(sampler.policy.parameters(), None) is None:
        return
    warnings.warn(
        "The pretrained sampler has made no step of training: its draws are those of its networks as they are, and log "
        "Z will be the mean reward over these. Unless their weights are from elsewhere, fit it first.",
        stacklevel=3,
    )


def _reward_on(sampler: Sampler, reward: Target) -> Reward:
    """The reward on a sampler's draws; InputError unless it can be fine-tuned by that."""
    check_instance("sampler", sampler, Sampler, "Sampler(target), after fit")
    if sampler.family is not None or sampler.is_member:
        raise InputError("Samplers of families, and of their members, cannot be fine-tuned.")
    target = Reward(reward, sampler.target)
    if isinstance(sampler.coordinates, FoundCoordinates) and not sampler.coordinates.is_found:
        raise InputError("The pretrained sampler has neither searched nor learned anything: fit it first.")
    return target
