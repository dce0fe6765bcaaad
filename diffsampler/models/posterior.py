"""What weighted draws say of a model's parameters, in the words of the trade."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count
from diffsampler.log_z import LogZEstimate
from diffsampler.log_z.resampling import systematic
from diffsampler.models.export import to_arviz, to_dataframe
from diffsampler.models.named_target import Values
from diffsampler.models.names import labels_of, values_of
from diffsampler.models.summary import HDI_PROB, Summary, summarise
from diffsampler.observables import ObservableEstimate, estimate_observable
from diffsampler.target import Target


@dataclass(frozen=True)
class Posterior:
    """Draws of a posterior, named and within their constraints.

    Attributes:
        values: equally weighted draws by name, float64, each with shape (n, *shape); of a target without named
            parameters "x" alone. Heavy ones of the weighted draws that they were chosen from occur more than once.
        num_distinct: how many of them differ.
        estimate: of log Z, the log evidence, by the weighted draws.
        target: whose posterior it is.
        rows: which of the weighted draws each is, with shape (n).
        x: the weighted draws, with shape (m, D), as the target takes them.
        log_weight: their log importance weights, with shape (m).
    """

    values: Values
    num_distinct: int
    estimate: LogZEstimate
    target: Target
    rows: Tensor
    x: Tensor
    log_weight: Tensor

    def expectation(self, f: Callable[[Values], Tensor] | str) -> ObservableEstimate:
        """The posterior mean of a function, with a standard error, by all weighted draws.

        Arguments:
            f: takes a dictionary of values, with shapes (m, *shape), and returns (m) or (m, k); or a parameter's name.

        Raises:
            InputError: if it is not finite at a draw of positive weight, or of another shape.
        """
        if isinstance(f, str):
            name, f = f, _entries_of(f, self.values)
        else:
            name = getattr(f, "__name__", "f")
        if not callable(f):
            raise InputError(f"f must be a function of values by name, or a parameter's name, got {f!r:.80}.")
        try:
            return estimate_observable(name, lambda x: f(values_of(self.target, x)), self.x, self.log_weight)
        except KeyError as error:
            raise InputError(f"{name} asks for {error}; there are {', '.join(self.values)}.") from error

    def summary(self, hdi_prob: float = HDI_PROB) -> Summary:
        """Mean, standard deviation, highest-density interval, effective draws and Monte Carlo error of each parameter.

        By all weighted draws: Monte Carlo errors are those of the weights.
        """
        return summarise(values_of(self.target, self.x), self.log_weight, hdi_prob, labels_of(self.target))

    def to_arviz(self) -> Any:
        """An `xarray.DataTree` for ArviZ: one chain of these draws.

        `posterior`; `sample_stats`, with `lp`, `energy` and `log_weight` (of the free numbers, as Stan's `lp__` is)
        and, as attributes, `khat`, `log_evidence` and its interval; `log_likelihood`, `observed_data`, coords and dims
        where the target knows them.

        Raises:
            InputError: if ArviZ is not installed.
        """
        return to_arviz(self.target, self.values, self.x[self.rows], self.log_weight[self.rows], self.estimate)

    def to_dataframe(self) -> Any:
        """A `pandas.DataFrame`: a row for each draw, a column for each number, such as `theta[0]`.

        Raises:
            InputError: if pandas is not installed.
        """
        return to_dataframe(self.target, self.values)

    def __str__(self) -> str:
        low, high = self.estimate.low, self.estimate.high
        head = (
            f"{len(self.rows):,} draws, {self.num_distinct:,} of them distinct; "
            f"log evidence {self.estimate.log_z:.4f} [{low:.4f}, {high:.4f}]"
        )
        return f"{head}\n{self.summary()}"


def posterior_of(
    target: Target,
    x: Tensor,
    log_weight: Tensor,
    estimate: LogZEstimate,
    num_draws: int,
    generator: torch.Generator | None = None,
) -> Posterior:
    """Equally weighted draws of weighted ones.

    Arguments:
        target: of which these are draws.
        x: with shape (m, D).
        log_weight: with shape (m); those that are not finite have no draw.
        estimate: of log Z.
        num_draws: how many to choose, each as often as its weight says, rounded up or down.
        generator: which, and their order.
    """
    usable = torch.where(log_weight.isfinite(), log_weight, -torch.inf)
    rows = systematic(usable, check_count("num_draws", num_draws), generator)
    rows = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]
    return Posterior(values_of(target, x[rows]), len(rows.unique()), estimate, target, rows, x, usable)


def _entries_of(name: str, values: Values) -> Callable[[Values], Tensor]:
    if name not in values:
        raise InputError(f"there is no parameter {name!r}; there are {', '.join(values)}.")
    return lambda values: values[name].flatten(1) if values[name].ndim > 1 else values[name]
