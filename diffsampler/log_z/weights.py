"""What log Z needs to know of importance weights, added up batch by batch: memory does not grow with their number."""

import math

import torch
from torch import Tensor

from diffsampler.log_z.pareto import pareto_khat_of_largest, tail_length

NUM_LARGEST = 20


class WeightSummary:
    """Sums over log importance weights, and the largest of them.

    Arguments:
        total: how many there will be: the tail that the Pareto shape is fitted to grows with it.

    Attributes:
        num: weights so far.
        num_invalid: those that are NaN or +inf; they count as zero.
        num_zero: those that are zero, the invalid ones included.
        log_sum: the log of their sum.
        log_sum_of_squares: the log of the sum of their squares.
        sum_of_logs: the sum of the logs of those that are not zero.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.num = self.num_invalid = self.num_zero = 0
        self.log_sum = self.log_sum_of_squares = -math.inf
        self.sum_of_logs = 0.0
        self._largest = torch.empty(0, dtype=torch.float64, device="cpu")

    def add(self, log_weight: Tensor) -> "WeightSummary":
        """Take in log-weights with shape (n): -inf is a weight of zero, NaN and +inf are invalid."""
        log_weight = log_weight.double()
        invalid = log_weight.isnan() | log_weight.isposinf()
        log_weight = torch.where(invalid, -math.inf, log_weight)
        zero = log_weight.isneginf()
        sums = torch.stack(
            [
                invalid.sum(),
                zero.sum(),
                log_weight.logsumexp(0),
                (2 * log_weight).logsumexp(0),
                torch.where(zero, 0.0, log_weight).sum(),
            ]
        ).tolist()
        self.num += log_weight.numel()
        self.num_invalid += int(sums[0])
        self.num_zero += int(sums[1])
        self.log_sum = _log_add(self.log_sum, sums[2])
        self.log_sum_of_squares = _log_add(self.log_sum_of_squares, sums[3])
        self.sum_of_logs += sums[4]
        kept = torch.cat([self._largest, log_weight.topk(min(self._num_kept, len(log_weight))).values.cpu()])
        self._largest = kept.topk(min(self._num_kept, len(kept))).values
        return self

    @property
    def ess(self) -> float:
        """The effective sample size, as a fraction."""
        return math.exp(2 * self.log_sum - self.log_sum_of_squares) / self.num

    @property
    def relative_variance(self) -> float:
        """Of the mean weight, over its square: (n sum p^2 - 1) / (n - 1) for weights p that sum to 1."""
        return max(1 / self.ess - 1, 0.0) / (self.num - 1)

    @property
    def largest_share(self) -> float:
        """That of the largest weight in the sum."""
        return math.exp(float(self._largest[0]) - self.log_sum)

    @property
    def khat(self) -> float:
        """The Pareto shape of the largest weights, as in `pareto_khat`."""
        return pareto_khat_of_largest(self._largest.flip(0), self.num)

    @property
    def _num_kept(self) -> int:
        return tail_length(self.total) + 1


def share_of_heavy(of_target: Tensor, log_weight: Tensor) -> tuple[float, float, float]:
    """The target's mass where weights are as large as the `NUM_LARGEST` largest of a sampler's, with shape (n).

    P(w > c) by log-weights of draws of the target, with shape (m), E[w; w > c] / Z by the sampler's, and the standard
    error of the difference.
    """
    largest = log_weight.softmax(0).topk(NUM_LARGEST).values
    found = float((of_target > log_weight.topk(NUM_LARGEST).values[-1]).double().mean())
    error = math.sqrt(float(largest.square().sum()) + found * (1 - found) / len(of_target))
    return found, float(largest.sum()), error


def _log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
