"""Contexts that trajectories are begun with."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.families.family import Family, rows_of_usable

REPEATS = 128  # of one context: few contexts with many draws each tell more of each log Z than many with few


def draw_contexts(family: Family, n: int, generator: torch.Generator | None) -> Tensor:
    """n contexts to train on, float64 or float32, with shape (n, C), on the generator's device.

    Families draw them on a CPU, as those of a user's own will.

    Raises:
        InputError: if `sample_contexts` returns something else.
    """
    found = family.sample_contexts(n, _on_cpu(generator))
    if not isinstance(found, Tensor) or found.shape != (n, family.context_dim) or not found.isfinite().all():
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"{type(family).__name__}.sample_contexts must return finite contexts with shape "
            f"(n, {family.context_dim}), here n = {n}, got {shown}."
        )
    return found if generator is None else found.to(generator.device)


def draw_jointly(family: Family, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n exact draws and their contexts, with shapes (n, D) and (n, C), on the generator's device.

    Simulations that have failed, as NaN or infinity, are left out: others are there twice.

    Raises:
        InputError: if `sample_jointly` returns something else, or all have failed.
    """
    x, context = family.sample_jointly(n, _on_cpu(generator))
    if x.shape != (n, family.dim) or context.shape != (n, family.context_dim):
        raise InputError(
            f"{type(family).__name__}.sample_jointly must return draws and contexts with shapes (n, {family.dim}) and "
            f"(n, {family.context_dim}), here n = {n}, got {tuple(x.shape)} and {tuple(context.shape)}."
        )
    rows = rows_of_usable(x.isfinite().all(-1) & context.isfinite().all(-1))
    if rows is None:
        raise InputError(f"{type(family).__name__}.sample_jointly must return finite numbers, got none of {n}.")
    x, context = x[rows], context[rows]
    return x.to(generator.device), context.to(x.dtype).to(generator.device)


def _on_cpu(generator: torch.Generator | None) -> torch.Generator | None:
    """Noise for a CPU, from that of any device."""
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = torch.randint(1 << 62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


class GroupedContexts:
    """Contexts that a family is trained on, each for a group of trajectories: groups are compared within themselves.

    Arguments:
        family: which.
        in_units: contexts in the units of states.
        repeats: trajectories of a group.
    """

    def __init__(
        self, family: Family, in_units: Callable[[Tensor], Tensor] = lambda context: context, repeats: int = REPEATS
    ) -> None:
        self.family, self.in_units, self.repeats = family, in_units, repeats

    def __call__(self, n: int, generator: torch.Generator | None) -> Tensor:
        """With shape (n, C)."""
        num_groups = max(1, n // self.repeats)
        contexts = self.in_units(draw_contexts(self.family, num_groups, generator))
        group = torch.arange(n, device=contexts.device) * num_groups // max(n, 1)
        return contexts[group]


def mean_of_group(values: Tensor, group: Tensor) -> Tensor:
    """The mean of the values with the same group, for each of them; both with shape (B)."""
    sums = torch.zeros_like(values).index_add(0, group, values)
    counts = torch.zeros_like(values).index_add(0, group, torch.ones_like(values))
    return (sums / counts.clamp(min=1))[group]


def log_mean_of_group(log_weight: Tensor, group: Tensor) -> Tensor:
    """The log of the mean weight of the group, for each of the log-weights; both with shape (B)."""
    highest = torch.full_like(log_weight, -torch.inf).scatter_reduce(0, group, log_weight, "amax")
    highest = torch.where(highest.isfinite(), highest, 0.0)[group]
    return mean_of_group((log_weight - highest).exp(), group).log() + highest


def spread_contexts(family: Family, n: int, generator: torch.Generator, num_candidates: int = 4096) -> Tensor:
    """n contexts that are far from each other among those trained on, float64, with shape (n, C).

    Each is as far as can be from those before, in ranks: every number of a context has its own unit.
    """
    contexts = draw_contexts(family, num_candidates, generator).double()
    ranks = contexts.argsort(0).argsort(0).double()
    chosen = [int((ranks - ranks.mean(0)).norm(dim=-1).argmin())]
    while len(chosen) < n:
        chosen.append(int(torch.cdist(ranks, ranks[chosen]).amin(1).argmax()))
    return contexts[chosen]
