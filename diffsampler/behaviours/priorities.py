"""Which points of a buffer are drawn: one class for each way to prefer some over others."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffsampler.errors import check_non_negative, check_positive


class Priority(ABC):
    """Unnormalised log-probabilities of drawing the points of a buffer.

    Attributes:
        uses_weight: whether `log_priority` reads the log-weights, which cost a pass through the networks.
    """

    uses_weight: bool = False

    @abstractmethod
    def log_priority(self, log_prob: Tensor, log_weight: Tensor) -> Tensor:
        """With shape (n).

        Arguments:
            log_prob: log R of the points, with shape (n).
            log_weight: the log importance weights of the trajectories that found them, with shape (n); 0 where none
                is known.
        """


class UniformPriority(Priority):
    """All alike."""

    def log_priority(self, log_prob: Tensor, log_weight: Tensor) -> Tensor:
        return torch.zeros_like(log_prob)


class _PowerPriority(Priority):
    def __init__(self, exponent: float = 1.0) -> None:
        self.exponent = check_non_negative("exponent", exponent)


class RewardPriority(_PowerPriority):
    """In proportion to R^exponent.

    Arguments:
        exponent: at least 0.
    """

    def log_priority(self, log_prob: Tensor, log_weight: Tensor) -> Tensor:
        return self.exponent * log_prob


class RankPriority(Priority):
    """In proportion to 1 / (offset n + rank), rank 0 for the highest R.

    References:
        Sample-efficient optimization in the latent space of deep generative models via weighted retraining, Tripp et
            al., 2020, arXiv:2006.09191.

    Arguments:
        offset: positive; small values prefer the best few.
    """

    def __init__(self, offset: float = 0.01) -> None:
        self.offset = check_positive("offset", offset)

    def log_priority(self, log_prob: Tensor, log_weight: Tensor) -> Tensor:
        rank = log_prob.argsort(descending=True).argsort()
        return -(self.offset * len(log_prob) + rank.to(log_prob.dtype)).log()


class ImportancePriority(_PowerPriority):
    """In proportion to a power of the importance weight: what the sampler finds too rarely is drawn more often.

    Arguments:
        exponent: at least 0.
    """

    uses_weight = True

    def log_priority(self, log_prob: Tensor, log_weight: Tensor) -> Tensor:
        return self.exponent * log_weight
