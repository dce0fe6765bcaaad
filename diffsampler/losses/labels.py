"""What says which of several end points is better: pairs of them, by a person, by log R, or by several objectives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffsampler.density import CheckedTarget, or_zero_density
from diffsampler.dominance import non_dominated
from diffsampler.errors import InputError, check_count, check_instance
from diffsampler.target import Target


@dataclass(frozen=True)
class Alternatives:
    """The end points of a batch, as labels see them.

    Attributes:
        x: in the target's own coordinates, with shape (B, D).
        ask: what evaluates the target there; nobody does where labels do not read `log_prob`.
    """

    x: Tensor
    ask: Callable[[Tensor], Tensor]

    @cached_property
    def log_prob(self) -> Tensor:
        """log R(x), float64, with shape (B); -inf where it is no number."""
        return or_zero_density(self.ask(self.x))


class Labels(nn.Module, ABC):
    """A law over end points, which the softmax of the sampler's log-densities is to follow."""

    @abstractmethod
    def cross_entropy(self, log_density: Tensor, points: Alternatives, generator: torch.Generator) -> Tensor:
        """With shape () and gradients to log_density.

        Arguments:
            log_density: what the sampler says of the points up to a constant, in their coordinates, with shape (B).
            points: what labels may look at.
            generator: the source of all noise.
        """


class PairLabels(Labels):
    """Labels of pairs. A subclass says how probable it is that the first of two is the better one.

    Arguments:
        rivals: with how many others of its batch each point is compared, at most half of them: B points make
            B times `rivals` comparisons.
    """

    def __init__(self, rivals: int = 8) -> None:
        super().__init__()
        self.rivals = check_count("rivals", rivals)

    @abstractmethod
    def preference(self, points: Alternatives, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        """1 where the first of two is better, 0 where the second is, 0.5 where neither, or a probability.

        Arguments:
            points: all of a batch.
            first, second: the rows of each pair, with shape (n).
            generator: the source of all noise.

        Returns:
            float64, with shape (n).
        """

    def cross_entropy(self, log_density: Tensor, points: Alternatives, generator: torch.Generator) -> Tensor:
        rows = torch.arange(len(log_density), device=log_density.device)
        rivals = min(self.rivals, max(1, (len(rows) - 1) // 2))
        first, second = rows.repeat(rivals), torch.cat([rows.roll(-shift) for shift in range(1, rivals + 1)])
        preference = self.preference(points, first, second, generator)
        difference = log_density[first] - log_density[second]
        # -(p log sigmoid(d) + (1 - p) log sigmoid(-d)).
        return ((1 - preference) * difference - F.logsigmoid(difference)).mean()


class HardLabels(PairLabels):
    """The point of higher R is better: nothing but the order of R is learned from.

    Arguments:
        rivals: as in `PairLabels`.
    """

    def preference(self, points: Alternatives, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        a, b = points.log_prob[first], points.log_prob[second]
        return (a > b).double() + 0.5 * (a == b).double()


class BradleyTerryLabels(PairLabels):
    """The first is better with probability R / (R + R'), drawn for each pair: what is learned is R / Z.

    References:
        Rank analysis of incomplete block designs, Bradley & Terry, 1952, Biometrika 39.

    Arguments:
        rivals: as in `PairLabels`.
    """

    def preference(self, points: Alternatives, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        difference = points.log_prob[first] - points.log_prob[second]
        probability = difference.sigmoid().nan_to_num(0.5)  # of two points of zero density
        noise = torch.rand(probability.shape, generator=generator, dtype=torch.float64, device=probability.device)
        return (noise < probability).double()


class Preferences(PairLabels):
    """Labels of one's own: what a person, or anything else, says of pairs. The target is not asked.

    Arguments:
        compare: maps two tensors of points, each with shape (n, D), to n numbers: 1 where the first is better, 0 where
            the second is, 0.5 where neither, or the share of people who prefer the first.
        rivals: as in `PairLabels`.

    Example:
        >>> labels = Preferences(lambda x, y: x.square().sum(-1) < y.square().sum(-1))
    """

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor], rivals: int = 8) -> None:
        super().__init__(rivals)
        if not callable(compare):
            raise InputError(f"compare must be a function of two tensors of points, got {compare!r}.")
        self.compare = compare

    def preference(self, points: Alternatives, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        found = torch.as_tensor(self.compare(points.x[first], points.x[second]), device=first.device).double().detach()
        if found.shape != first.shape or not ((found >= 0) & (found <= 1)).all():
            raise InputError(
                f"compare must return {len(first)} numbers between 0 and 1, one for each pair, got shape "
                f"{tuple(found.shape)}{'' if found.shape != first.shape else ' with others among them'}."
            )
        return found


class ParetoLabels(Labels):
    """A partial order: alike are the points of a batch that no other of it is better than in all objectives.

    One is better than another if it is at least as good in each objective, and better in one. What is no number, or
    minus infinity, is worst.

    References:
        Order-Preserving GFlowNets, Chen & Mauch, 2024, arXiv:2310.00386, section 3.

    Arguments:
        objectives: targets, whose log-densities are to be high; or a function that maps points with shape (n, D) to
            K objectives each, with shape (n, K).
    """

    def __init__(self, objectives: Sequence[Target] | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = objectives if callable(objectives) and not isinstance(objectives, Target) else None
        if self.function is None:
            if isinstance(objectives, Target) or len(objectives) < 2:
                raise InputError("objectives must be at least two targets; the order of one is HardLabels.")
            for objective in objectives:
                check_instance("objectives", objective, Target, "FunctionTarget(fn, dim)")
            objectives = [CheckedTarget(objective) for objective in objectives]
        self.targets = nn.ModuleList([] if self.function else objectives)

    def cross_entropy(self, log_density: Tensor, points: Alternatives, generator: torch.Generator) -> Tensor:
        best = self.non_dominated(points.x)
        return -log_density.log_softmax(0)[best].mean()

    def non_dominated(self, x: Tensor) -> Tensor:
        """Which of the points no other of them is better than, with shape (B)."""
        return non_dominated(or_zero_density(self._values(x)))

    def _values(self, x: Tensor) -> Tensor:
        if self.function is None:
            return torch.stack([target.log_prob(x) for target in self.targets], -1)
        values = self.function(x.clone())
        if not isinstance(values, Tensor) or values.ndim != 2 or len(values) != len(x):
            what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(f"objectives must return a tensor with shape ({len(x)}, K), got {what}.")
        return values.detach()
