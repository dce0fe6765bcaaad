"""What can be had of several objectives at once: draws for many preferences, and the best of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.dominance import hypervolume, non_dominated
from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.families import Scalarised, read_contexts
from diffsampler.log_z.resampling import systematic
from diffsampler.report.pareto_figure import plot_pareto_front
from diffsampler.sampler import Sampler
from diffsampler.streams import new_generator


@dataclass(frozen=True)
class ParetoFront:
    """Draws for several preferences, and which of them no other is better than in everything; print it.

    Attributes:
        preferences: float64, with shape (P, K).
        x: equally weighted draws, with shape (P, n, D).
        objectives: log R_k of each, float64, with shape (P, n, K).
        is_on_front: which are not dominated by any of all draws, with shape (P, n).
        reference: from where volumes are measured, with shape (K).
        hypervolume: between it and the front.
    """

    preferences: Tensor
    x: Tensor
    objectives: Tensor
    is_on_front: Tensor
    reference: Tensor
    hypervolume: float

    @property
    def front(self) -> Tensor:
        """The objectives on the front, with shape (m, K)."""
        return self.objectives[self.is_on_front]

    def plot(self) -> Figure:
        """Draws and front, of each pair of the first three objectives."""
        return plot_pareto_front(self.preferences, self.objectives, self.is_on_front, self.reference)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the front, without the draws behind it."""
        return {
            "preferences": self.preferences.tolist(),
            "mean_objectives": self.objectives.mean(1).tolist(),
            "front": self.front.tolist(),
            "reference": self.reference.tolist(),
            "hypervolume": self.hypervolume,
        }

    def __str__(self) -> str:
        num = self.preferences.shape[-1]
        width = 9 * num + 2
        lines = [f"{'preferences':>{width}}  {'mean log rewards':>{10 * num}}  on the front"]
        rows = zip(self.preferences, self.objectives.mean(1), self.is_on_front.double().mean(1), strict=True)
        for preference, mean, share in rows:
            where = "".join(f"{value:>9.3f}" for value in preference.tolist())
            what = "".join(f"{value:>10.3f}" for value in mean.tolist())
            lines.append(f"{where:>{width}}  {what}  {float(share):>12.1%}")
        reference = ", ".join(f"{value:.4g}" for value in self.reference.tolist())
        lines.append(f"{len(self.front)} draws on the front; hypervolume {self.hypervolume:.5g} above ({reference})")
        return "\n".join(lines)


def pareto_front(
    sampler: Sampler,
    preferences: Tensor | Sequence[Sequence[float]],
    num_samples: int = 1000,
    seed: int = 0,
    reference: Sequence[float] | Tensor | None = None,
) -> ParetoFront:
    """Draws for each of several preferences, by their weights, with their log rewards, and the front of all.

    Arguments:
        sampler: of `Scalarised` targets, after `fit`.
        preferences: with shape (P, K), each at least 0 and 1 in all.
        num_samples: draws for each.
        seed: of all noise; each preference has a stream of its own.
        reference: log rewards with shape (K), from which the hypervolume is measured; by default the lowest of each
            among the draws, which says nothing beside other draws.

    Raises:
        InputError: if the sampler is of something else, or there are no preferences.
    """
    check_instance("sampler", sampler, Sampler, "Sampler(Scalarised(targets)), after fit")
    check_count("num_samples", num_samples)
    family = sampler.target
    if not isinstance(family, Scalarised):
        raise InputError(f"pareto_front is for samplers of Scalarised, got one of {type(family).__name__}.")
    rows, found = read_contexts(family, preferences, "preferences"), []
    check_count("seed", seed, minimum=0)
    for k, context in enumerate(rows):
        generator = new_generator("test", seed, step=k, device=sampler.device)
        x, log_weight = sampler.given(context).sample(num_samples, return_log_weights=True, generator=generator)
        found.append(x[systematic(log_weight, num_samples, generator)])
    x = torch.stack(found)
    with torch.no_grad():
        objectives = family.log_rewards(x.double())
    is_on_front = non_dominated(objectives.flatten(0, 1)).view(objectives.shape[:2])
    start = objectives.flatten(0, 1).amin(0) if reference is None else _read(reference, objectives)
    volume = hypervolume(objectives[is_on_front], start)
    return ParetoFront(torch.stack(rows), x, objectives, is_on_front, start, volume)


def _read(reference: Sequence[float] | Tensor, objectives: Tensor) -> Tensor:
    num = objectives.shape[-1]
    try:
        found = torch.as_tensor(reference, dtype=torch.float64).to(objectives.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"reference must be {num} log rewards, got {reference!r}.") from error
    if found.shape != (num,) or not found.isfinite().all():
        raise InputError(f"reference must be {num} finite log rewards, got {reference!r}.")
    return found
