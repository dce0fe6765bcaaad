"""Targets that an argument of theirs tells apart."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from diffsampler.density import check_values, checked_values_and_score
from diffsampler.errors import InputError, check_instance
from diffsampler.families.family import Family
from diffsampler.families.places import check_places, settle
from diffsampler.target import Target

NUM_KEPT = 256
ROUNDING = 1e-6  # of a number, by which it is no less trained on


class Coupled(Family):
    """Any target, on R^D or on one support, with numbers that it is made with for a context: couplings, widths.

    Arguments:
        make: makes the target: its class, say.
        ranges: (low, high) of each number, by the name of the argument; trained on uniformly. A sampler that is asked
            for a context beyond them warns.
        fixed: the other arguments.

    Example:
        >>> from targets import Phi4Hopping
        >>> family = Coupled(Phi4Hopping, {"kappa": (0.2, 0.3)}, shape=(4, 4))
        >>> family.given(0.25).log_prob(torch.zeros(1, 16)).tolist()
        [0.0]
    """

    def __init__(self, make: Callable[..., Target], ranges: Mapping[str, tuple[float, float]], **fixed: Any) -> None:
        bounds = _read(ranges)
        # What is declared may depend on the numbers: at the ends of all ranges it does, if anywhere.
        numbers = [dict(zip(bounds, ends, strict=True)) for ends in zip(*bounds.values(), strict=True)]
        _check_arguments(make, bounds, fixed)
        low, high = (check_instance("make", make(**one, **fixed), Target, "Phi4") for one in numbers)
        check_places(type(self).__name__, [low, high])
        super().__init__(low.dim, len(bounds))
        settle(self, low)
        self.make, self.ranges, self.fixed = make, bounds, fixed
        self.context_names = tuple(bounds)
        self.differentiable = low.differentiable
        self.register_buffer("_like", torch.zeros(()), persistent=False)
        self._made: dict[tuple[float, ...], Target] = {}

    def target_at(self, context: Tensor) -> Target:
        """The target of one context, with shape (C)."""
        key = tuple(context.tolist())
        if key not in self._made:
            if len(self._made) >= NUM_KEPT:
                self._made.pop(next(iter(self._made)))
            made = self.make(**dict(zip(self.context_names, key, strict=True)), **self.fixed)
            self._made[key] = made.to(self._like.device, self._like.dtype)
        return self._made[key]

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        return self._in_groups(x, context, lambda target, rows: (check_values(target, rows, target.log_prob(rows)),))[0]

    def log_prob_and_score(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._in_groups(x, context, checked_values_and_score)

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        low, high = torch.tensor(list(self.ranges.values()), dtype=torch.float64).unbind(-1)
        uniform = torch.rand(n, self.context_dim, generator=generator, dtype=torch.float64)
        return low.to(uniform) + (high - low).to(uniform) * uniform

    def check_context(self, context: Tensor) -> None:
        self.target_at(context)  # which is refused in the words of the target

    def beyond_training(self, context: Tensor) -> str | None:
        for (name, (low, high)), value in zip(self.ranges.items(), context.tolist(), strict=True):
            rounding = ROUNDING * max(abs(low), abs(high))
            if not low - rounding <= value <= high + rounding:
                return f"{name} = {value:.4g} is outside of {low:g} to {high:g}, where it is trained on."
        return None

    def log_z_at(self, context: Tensor) -> float | None:
        return self.target_at(context).log_z

    def _in_groups(
        self, x: Tensor, context: Tensor, ask: Callable[[Target, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """What the targets say of their own points, in the order of all."""
        contexts, group = context.reshape(-1, self.context_dim).unique(dim=0, return_inverse=True)
        rows, order = x.reshape(-1, x.shape[-1]), group.argsort(stable=True)
        pieces = rows[order].split(group.bincount(minlength=len(contexts)).tolist())
        found = [ask(self.target_at(one), piece) for one, piece in zip(contexts, pieces, strict=True)]
        back = order.argsort()
        joined = (torch.cat(parts)[back] for parts in zip(*found, strict=True))
        return tuple(part.reshape(*x.shape[:-1], *part.shape[1:]) for part in joined)


def _check_arguments(make: Callable[..., Target], ranges: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raise InputError where a target takes no arguments of these names, or not together."""
    if isinstance(make, Target):
        raise InputError(
            f"make must be what makes a target, a class such as {type(make).__name__}, got one that is made."
        )
    if both := [name for name in ranges if name in fixed]:
        raise InputError(f"{both[0]} is a context, by ranges, and can have no other value: leave {both[0]}= out.")
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        return  # what says nothing of its arguments
    try:
        signature.bind(**ranges, **fixed)
    except TypeError as error:
        name, given = getattr(make, "__name__", "make"), ", ".join([*ranges, *fixed])
        accepted = ", ".join(signature.parameters) or "none"
        raise InputError(f"{name} cannot be made of {given}: {error}; its arguments are {accepted}.") from error


def _read(ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Numbers, low and high.

    Raises:
        InputError: if they are none.
    """
    what = "ranges must give (low, high) for each argument that is a context, as in {'kappa': (0.2, 0.3)}"
    if not isinstance(ranges, Mapping) or not ranges:
        raise InputError(f"{what}, got {ranges!r}.")
    found = {}
    for name, bounds in ranges.items():
        try:
            low, high = map(float, bounds)
        except (TypeError, ValueError) as error:
            raise InputError(f"{what}, got {bounds!r} for {name}.") from error
        if not low < high:
            raise InputError(f"{what}, with low below high, got {bounds!r} for {name}.")
        found[name] = (low, high)
    return found
