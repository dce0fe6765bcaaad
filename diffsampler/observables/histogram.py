"""Distributions as observables: the mean of a histogram, with an error for every bin."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count
from diffsampler.observables.base import Observable, columns

SHOWN = 0.999  # of the weight: what the rest has to say does not stretch the bins


class Histogram(Observable):
    """The density of numbers of which every draw has m, such as the distances of its pairs, in bins of equal width.

    What lies outside of all bins counts as part of the whole, not of any bin.

    Arguments:
        f: the numbers of x, with shape (n) or (n, m), for x with shape (n, D).
        low, high: where the bins begin and end; by default where the numbers do of those draws that carry 99.9 % of
            the weight.
        num_bins: how many.
        label: of the axis, for figures.
    """

    def __init__(
        self,
        f: Callable[[Tensor], Tensor],
        low: float | None = None,
        high: float | None = None,
        num_bins: int = 50,
        label: str = "value",
    ) -> None:
        if low is not None and high is not None and not low < high:
            raise InputError(f"low must be below high, got {low!r} and {high!r}.")
        self.f = f
        self.low, self.high = low, high
        self.num_bins = check_count("num_bins", num_bins)
        self.label = label

    @property
    def edges(self) -> Tensor:
        """Of the bins, float64, with shape (num_bins + 1).

        Raises:
            InputError: if low or high was left to the draws, and these have not been seen.
        """
        if self.low is None or self.high is None:
            raise InputError("the bins of a Histogram are known once low and high are given, or by fitted_to(draws).")
        return torch.linspace(self.low, self.high, self.num_bins + 1, dtype=torch.float64)

    def fitted_to(self, x: Tensor, weight: Tensor) -> "Histogram":
        if self.low is not None and self.high is not None:
            return self
        order = weight.argsort(descending=True)
        count = int((weight[order].cumsum(0) < SHOWN * weight.sum()).sum()) + 1
        shown = columns(self.f(x[order[:count]]), count)
        shown = shown[shown.isfinite()]  # what is not is refused where it is averaged
        if not len(shown):
            shown = shown.new_zeros(1)
        low = float(shown.min()) if self.low is None else self.low
        high = float(shown.max()) if self.high is None else self.high
        return Histogram(self.f, low, high if high > low else low + 1.0, self.num_bins, self.label)

    def __call__(self, x: Tensor) -> Tensor:
        values, edges = columns(self.f(x), len(x)), self.edges.to(x.device)
        bins = torch.bucketize(values, edges[1:], right=True)
        bins = torch.where(values == edges[-1], self.num_bins - 1, bins)  # the last bin holds its upper end
        inside = (values >= edges[0]) & (bins < self.num_bins)
        counts = values.new_zeros(len(x), self.num_bins)
        counts.scatter_add_(1, bins.clamp(max=self.num_bins - 1), inside.double())
        # No bin holds what is no number: as if it were far out, it would go unnoticed.
        counts[~values.isfinite().all(-1)] = torch.nan
        return counts / (values.shape[1] * (edges[1] - edges[0]))
