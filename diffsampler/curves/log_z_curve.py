"""log Z as a function of the context."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.assessment import Assessment, assess
from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.families import Family, read_context
from diffsampler.log_z import LogZEstimate
from diffsampler.progress import progress_of
from diffsampler.report.curve_figure import plot_curve
from diffsampler.sampler import Sampler


@dataclass(frozen=True)
class LogZCurve:
    """log Z at several contexts, each judged by its own draws; print it.

    Attributes:
        names: of the C numbers of a context.
        contexts: float64, with shape (K, C).
        assessments: of each.
    """

    names: tuple[str, ...]
    contexts: Tensor
    assessments: tuple[Assessment, ...]

    @property
    def estimates(self) -> list[LogZEstimate]:
        """By importance weights at each context, never from what a network has learned of log Z."""
        return [one.estimate for one in self.assessments]

    @property
    def log_z(self) -> Tensor:
        """With shape (K)."""
        return torch.tensor([one.log_z for one in self.estimates], dtype=torch.float64)

    @property
    def grades(self) -> list[str]:
        """Of each verdict."""
        return [one.verdict.grade for one in self.assessments]

    def plot(self) -> Figure:
        """log Z with its intervals against the first number of the context; those not trustworthy stand out."""
        ends = torch.tensor([[one.log_z, one.low, one.high] for one in self.estimates])
        known = [one.true_log_z for one in self.assessments]
        return plot_curve(self.contexts[:, 0], ends, self.grades, self.names[0], known)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = zip(self.contexts.tolist(), self.assessments, strict=True)
        return {
            "names": list(self.names),
            "points": [
                {"context": context, "grade": one.verdict.grade, **one.estimate.to_dict()} for context, one in rows
            ],
        }

    def __str__(self) -> str:
        width = max(24, 12 * len(self.names))
        lines = [f"{', '.join(self.names):>{width}}  {'log Z':>28}  {'ESS':>6}  verdict"]
        for context, one in zip(self.contexts.tolist(), self.assessments, strict=True):
            where, estimate = ", ".join(f"{value:.5g}" for value in context[:6]), one.estimate
            log_z = f"{estimate.log_z:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
            lines.append(f"{where:>{width}}  {log_z:>28}  {estimate.ess:>6.1%}  {one.verdict.grade}")
        return "\n".join(lines)


def log_z_curve(
    sampler: Sampler,
    contexts: Tensor | Sequence[Any],
    num_samples: int = 10_000,
    seed: int = 0,
    observables: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    progress_bar: bool = False,
) -> LogZCurve:
    """log Z of several members of a family, each from draws and importance weights of its own.

    Arguments:
        sampler: of the family, after `fit`.
        contexts: with shape (K, C), or (K) where C is 1.
        num_samples: draws at each.
        seed: of all noise; each context has a stream of its own.
        observables: as in `assess`.
        progress_bar: whether to show how far it is.

    Raises:
        InputError: if the sampler is none of a family, or there are no contexts.
    """
    check_instance("sampler", sampler, Sampler, "Sampler(family), after fit")
    check_count("num_samples", num_samples)
    if not isinstance(sampler.target, Family):
        raise InputError(f"log_z_curve is for samplers of a Family; {type(sampler.target).__name__} is one density.")
    if not isinstance(contexts, Tensor | Sequence) or not len(contexts):
        raise InputError(f"contexts must be a list of contexts, one at least, got {contexts!r}.")
    rows = [read_context(sampler.target, context) for context in contexts]
    found = []
    with progress_of("Curve", len(rows), " contexts", progress_bar, progress_bar) as tell:
        for k, context in enumerate(rows):
            found.append(assess(sampler.given(context), num_samples, seed + k, observables=observables))
            tell(k + 1)
    names = tuple(sampler.target.context_names) or tuple(
        f"context {k}" if sampler.target.context_dim > 1 else "context"
        for k in range(1, sampler.target.context_dim + 1)
    )
    return LogZCurve(names, torch.stack(rows), tuple(found))
