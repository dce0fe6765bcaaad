"""Families: unnormalised densities R(x | c), one for every context c."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count
from diffsampler.spaces import Euclidean, Product
from diffsampler.support import beside_reals
from diffsampler.target import Target, by_autograd, check_log_z, space_of


class Family(Target):
    """Densities of x that a context c tells apart: a temperature, a coupling, data, preferences.

    One sampler learns all of them; `sampler.given(context)` is that of one. All have the support, or the space,
    that the family declares, if it does, as a target would.

    Arguments:
        dim: the dimension D of x.
        context_dim: the dimension C of a context, at least 1.

    Attributes:
        context_names: of the C numbers of a context, for figures; by default "context".
    """

    context_names: Sequence[str] = ()

    def __init__(self, dim: int, context_dim: int) -> None:
        super().__init__(dim)
        self.context_dim = check_count("context_dim", context_dim)

    @abstractmethod
    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """log R(x | c), with shape (*), for x with shape (*, D) and contexts with shape (*, C)."""

    @abstractmethod
    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n contexts to train on, with shape (n, C)."""

    def log_prob_and_score(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """`log_prob` and its gradient in x, with shapes (*) and (*, D), by autograd unless there is a closed form."""
        return by_autograd(self.known_as, lambda point: self.log_prob(point, context), x)

    def sample_jointly(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n exact draws, and the context of each, with shapes (n, D) and (n, C), if there are such.

        Of a posterior: parameters from the prior, then data from the model.
        """
        raise NotImplementedError(f"{type(self).__name__} has no exact draws.")

    @property
    def has_joint_samples(self) -> bool:
        """Whether `sample_jointly` is implemented."""
        return type(self).sample_jointly is not Family.sample_jointly

    def statistics(self, x: Tensor) -> Tensor:
        """The few numbers of x that log R(x | c) depends on, the same for all contexts, with shape (*, S).

        Kept, they give log R at every context for nothing: draws of one are weighed for others.
        """
        raise NotImplementedError(f"{type(self).__name__} has no statistics.")

    def log_prob_of(self, statistics: Tensor, context: Tensor) -> Tensor:
        """log R(x | c), with shape (*), of points with these statistics."""
        raise NotImplementedError(f"{type(self).__name__} has no statistics.")

    @property
    def has_statistics(self) -> bool:
        """Whether `statistics` is implemented."""
        return type(self).statistics is not Family.statistics

    def check_context(self, context: Tensor) -> None:
        """Raise InputError if a context, with shape (C), finite, is none of this family's; by default all are."""

    def beyond_training(self, context: Tensor) -> str | None:
        """What to warn of where a sampler is asked for a context, with shape (C), that training never sees, if any."""
        return None

    def log_z_at(self, context: Tensor) -> float | None:
        """log Z of one context, with shape (C), where it is known exactly."""
        return None

    def given(self, context: Tensor | Sequence[float] | float) -> "Member":
        """The density of one context.

        Raises:
            InputError: if it is no finite context.
        """
        return Member(self, read_context(self, context))


class Member(Target):
    """One density of a family.

    Arguments:
        family: which.
        context: with shape (C).
    """

    def __init__(self, family: Family, context: Tensor) -> None:
        super().__init__(family.dim)
        self._family = (family,)  # whose tensors are not those of each member
        self.register_buffer("context", context, persistent=False)
        self.differentiable, self.has_density = family.differentiable, family.has_density
        self.support, self.space = family.support, family.space
        self.plot_range, self.plot_coordinates = family.plot_range, family.plot_coordinates
        self._asked = context  # whatever dtype and device the buffer takes

    @cached_property
    def log_z(self) -> float | None:
        # Transfer matrices take seconds, and most members are never reported on.
        return check_log_z(self.known_as, self.family.log_z_at(self._asked))

    @property
    def family(self) -> Family:
        """What it is one of."""
        return self._family[0]

    @property
    def known_as(self) -> str:
        return self.family.known_as

    def log_prob(self, x: Tensor) -> Tensor:
        return self.family.log_prob(x, self._context_of(x))

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.family.log_prob_and_score(x, self._context_of(x))

    def _context_of(self, x: Tensor) -> Tensor:
        return self.context.to(x).expand(*x.shape[:-1], -1)


class Joint(Target):
    """A family as a function of pairs (x, c), with shape (*, D + C): what a sampler of all members walks on.

    Arguments:
        family: which.
    """

    def __init__(self, family: Family) -> None:
        if not hasattr(family, "context_dim"):
            raise InputError(
                f"{type(family).__name__} must call super().__init__(dim, context_dim) in its own __init__."
            )
        names = family.context_names
        if isinstance(names, str) or len(names) not in (0, family.context_dim):
            raise InputError(
                f"context_names of {type(family).__name__} must be a name for each of its {family.context_dim} "
                f"numbers, in a tuple, got {names!r}."
            )
        super().__init__(family.dim + family.context_dim)
        self.family = family
        space_of(family)  # which refuses what is no space of its dimension, or beside a support
        if family.coordinates is not None:
            raise InputError(
                f"{type(family).__name__} declares coordinates of its own, which no family has, so far: declare "
                "a support or a space, or write log_prob in coordinates that go anywhere."
            )
        self.support = beside_reals(family.support, family.dim, family.context_dim)
        self.space = None if family.space is None else Product([family.space, Euclidean(family.context_dim)])
        self.differentiable, self.has_density = family.differentiable, family.has_density

    @property
    def known_as(self) -> str:
        return self.family.known_as

    def log_prob(self, x: Tensor) -> Tensor:
        return self.family.log_prob(*self._split(x))

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        point, context = self._split(x)
        log_prob, score = self.family.log_prob_and_score(point, context)
        return log_prob, torch.cat([score, torch.zeros_like(context)], -1)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split([self.family.dim, self.family.context_dim], -1)


def walked_on(target: Target) -> Target:
    """What a sampler of a target walks on: of a family, all pairs."""
    return Joint(target) if isinstance(target, Family) else target


def size_of_context(family: Family, kind: str = "") -> str:
    """What a context is, for messages: how many numbers, and which."""
    names = f" ({', '.join(family.context_names)})" if family.context_names else ""
    return f"{family.context_dim} {kind}number{'s' if family.context_dim > 1 else ''}{names}"


def rows_of_usable(is_usable: Tensor) -> Tensor | None:
    """As many rows as there are, of those that are usable, with shape (n): others are there twice; None without any."""
    usable = is_usable.nonzero().flatten()
    return usable[torch.arange(len(is_usable)) % len(usable)] if len(usable) else None


def read_context(family: Family, context: Tensor | Sequence[float] | float) -> Tensor:
    """A context as a tensor, float64, with shape (C).

    Raises:
        InputError: if it is none.
    """
    try:
        found = torch.as_tensor(context, dtype=torch.float64).detach().reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"context must be {size_of_context(family)}, got {context!r}.") from error
    if len(found) != family.context_dim or not found.isfinite().all():
        raise InputError(f"context must be {size_of_context(family, 'finite ')}, got {found.tolist()}.")
    family.check_context(found)
    return found


def read_contexts(family: Family, contexts: Iterable[Any], name: str = "contexts", minimum: int = 1) -> list[Tensor]:
    """Several contexts, each as by `read_context`: rows of a tensor or an array, or a list.

    Raises:
        InputError: if they are none, or too few.
    """
    try:
        rows = list(contexts)
    except TypeError:  # one number, also as a tensor without dimensions
        rows = None
    if rows is None or len(rows) < minimum:
        few = ", one at least" if minimum else ""
        raise InputError(f"{name} must be a list of contexts{few}, got {contexts!r}.")
    return [read_context(family, one) for one in rows]
