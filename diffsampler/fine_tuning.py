"""A pretrained sampler under a reward: its draws, weighed by that, and networks that learn to draw so."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline import Independent
from diffsampler.coordinates import FoundCoordinates, RewardCoordinates, SearchedCoordinates
from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.log_z.resampling import systematic
from diffsampler.networks import StateFlow
from diffsampler.paths import ForwardMeasure, weighted_rollout
from diffsampler.processes import Process
from diffsampler.recipes import FineTuning, Parts
from diffsampler.sampler import Sampler
from diffsampler.target import Target
from diffsampler.training.fit import fit

NUM_TILTING = 10_000  # draws of the pretrained sampler


class Reward(Target):
    """A reward on another density's draws: what is known of it as a density, log Z and draws, means nothing here.

    Arguments:
        given: log R is its `log_prob`.
        prior: the other density, whose space it shares.
    """

    def __init__(self, given: Target, prior: Target) -> None:
        super().__init__(given.dim)
        self.given, self._prior = given, (prior,)  # whose tensors are the pretrained sampler's
        self.differentiable, self.space = given.differentiable, prior.space
        self.plot_range, self.plot_coordinates = prior.plot_range, prior.plot_coordinates

    @property
    def known_as(self) -> str:
        return self.given.known_as

    def log_prob(self, x: Tensor) -> Tensor:
        return self.given.log_prob(x)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.given.log_prob_and_score(x)

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {**self._prior[0].observables, **self.given.observables}

    @property
    def coordinate_names(self) -> list[str] | None:
        return self._prior[0].coordinate_names

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        return self.given.diagnostics(x)


def mean_reward(sampler: Sampler, reward: Target, num_samples: int = 20_000, seed: int = 0) -> Independent:
    """log Z of a reward on a pretrained sampler's draws, by those alone: what a fine-tuned one is assessed beside.

    Arguments:
        sampler, reward: as in `fine_tuned`.
        num_samples: draws.
        seed: of all noise.

    Raises:
        InputError: if they do not fit together, or the reward is zero or not finite at all draws.
    """
    untrained = fine_tuned(sampler, reward)
    generator = torch.Generator(untrained.device).manual_seed(check_count("seed", seed, minimum=0))
    x, log_weight = untrained.sample(num_samples, return_log_weights=True, generator=generator)
    estimate = untrained.estimate_from(log_weight)
    return Independent(estimate, x[systematic(log_weight, max(1, int(estimate.ess * num_samples)), generator)])


def _tilt(tuned: Sampler, seed: int) -> None:
    """Let a control that knows a mixture lead to that of the pretrained draws, weighed by the reward."""
    coordinates = None if tuned.coordinates is None else tuned.coordinates.coordinates
    if not isinstance(coordinates, SearchedCoordinates) or coordinates.mixture is None:
        return
    generator = torch.Generator(tuned.device).manual_seed(check_count("seed", seed, minimum=0))
    z, log_weight = weighted_rollout(tuned.dynamics, NUM_TILTING, generator)
    usable = log_weight.isfinite()
    if usable.any():
        coordinates.mixture = coordinates.mixture.tilted(z[usable], log_weight[usable])


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
        sampler: pretrained, of one density, with kernels that use no score: a target alone gets such.
        reward: R >= 0; log R is its `log_prob`. It need have no integral.
        flow: the state flow, relative to the pretrained paths, for losses that use one.

    Raises:
        InputError: if they do not fit together.
    """
    check_instance("sampler", sampler, Sampler, "Sampler(target), after fit")
    check_instance("reward", reward, Target, "FunctionTarget(log_reward, dim)")
    prior = sampler.target
    if sampler.family is not None or sampler.is_member:
        raise InputError("Samplers of families, and of their members, cannot be fine-tuned.")
    if reward.dim != prior.dim:
        raise InputError(f"reward must have the sampler's dimension {prior.dim}, got {reward.dim}.")
    if reward.support is not None:
        raise InputError("A reward declares no support: return -inf where it is zero.")
    if isinstance(sampler.coordinates, FoundCoordinates) and not sampler.coordinates.is_found:
        raise InputError("The pretrained sampler has neither searched nor learned anything: fit it first.")
    frozen, start = (copy.deepcopy(sampler, {id(prior): prior}) for _ in range(2))
    parts = Parts(
        start.policy.process,
        start.policy.control,
        flow,
        start.grid,
        None if start.coordinates is None else RewardCoordinates(start.coordinates),
    )
    tuned = Sampler(
        Reward(reward, prior),
        **parts._asdict(),
        backward_control=start.policy.backward_control,
        measure=ForwardMeasure(frozen.policy),
    )
    tuned.recipe = FineTuning(parts)
    return tuned.to(sampler.device, sampler.dtype)


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
    _tilt(tuned, seed)
    with torch.inference_mode(False):
        fit(tuned, max_steps, seed, **options)
    return tuned
