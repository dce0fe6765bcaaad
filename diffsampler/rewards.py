"""A reward on another density's draws, and the product of both."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.density import check_values, checked_values_and_score
from diffsampler.errors import InputError, check_instance
from diffsampler.target import Target


class Reward(Target):
    """A reward on another density's draws: what is known of it as a density, log Z and draws, means nothing here.

    Arguments:
        given: log R is its `log_prob`.
        prior: the other density, whose space it shares.

    Raises:
        InputError: if they do not fit together.
    """

    def __init__(self, given: Target, prior: Target) -> None:
        check_instance("reward", given, Target, "FunctionTarget(log_reward, dim)")
        if given.dim != prior.dim:
            raise InputError(f"reward must have the dimension of the density, {prior.dim}, got {given.dim}.")
        if given.support is not None:
            raise InputError("A reward declares no support: return -inf where it is zero.")
        super().__init__(given.dim)
        self.given, self._prior = given, (prior,)  # whose tensors are the pretrained sampler's
        self.differentiable, self.space = given.differentiable, prior.space
        self.plot_range, self.plot_coordinates = prior.plot_range, prior.plot_coordinates

    @property
    def prior(self) -> Target:
        """The other density."""
        return self._prior[0]

    @property
    def guide(self) -> Target:
        """The density whose score networks take: that of networks which were trained on the other one."""
        return self.prior.guide if isinstance(self.prior, Reward) else self.prior

    @property
    def known_as(self) -> str:
        return self.given.known_as

    @property
    def points_of(self) -> Target:
        return self.prior.points_of or self.prior

    def log_prob(self, x: Tensor) -> Tensor:
        return self.given.log_prob(x)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.given.log_prob_and_score(x)

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {**self.prior.observables, **self.given.observables}

    @property
    def coordinate_names(self) -> list[str] | None:
        return self.prior.coordinate_names

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        return self.given.diagnostics(x)


class Product(Reward):
    """The unnormalised density p(x) R(x), of one that is known and a reward: its Z is the integral of both.

    Arguments:
        prior: p, and what it declares.
        given: log R is its `log_prob`.
        guide: the density whose score networks take, where that is not the product: that of a pretrained sampler.

    Raises:
        InputError: if they do not fit together.

    Example:
        >>> from diffsampler import FunctionTarget
        >>> from targets import Gaussian
        >>> prior, reward = Gaussian(mean=[0.0]), FunctionTarget(lambda x: x.sum(-1), dim=1)
        >>> Product(prior, reward).log_prob(torch.ones(1)) - prior.log_prob(torch.ones(1))
        tensor(1.)
    """

    def __init__(self, prior: Target, given: Target, guide: Target | None = None) -> None:
        super().__init__(given, prior)
        self.asked = prior  # which goes along to other devices, as `given` does
        self._guide = () if guide is None else (guide,)
        self.differentiable = prior.differentiable and given.differentiable
        self.support, self.coordinates, self.limits = prior.support, prior.coordinates, prior.limits

    @property
    def guide(self) -> Target:
        return self._guide[0] if self._guide else self

    def fingerprint(self) -> dict[str, Target]:
        """What a checkpoint must agree with."""
        return {"prior": self.prior, "given": self.given, **({"guide": self.guide} if self._guide else {})}

    @property
    def known_as(self) -> str:
        return f"{self.prior.known_as} * {self.given.known_as}"

    def log_prob(self, x: Tensor) -> Tensor:
        return sum(check_values(one, x, one.log_prob(x.clone())) for one in (self.prior, self.given))

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # The sum of two may have the right shape where one of them has not.
        (first, score), (second, more) = (checked_values_and_score(one, x.clone()) for one in (self.prior, self.given))
        return first + second, score + more

    def starting_points(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        return self.prior.starting_points(n, generator)
