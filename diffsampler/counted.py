"""Counts of what a density is asked: one evaluation is one point, whether value, score or both are asked for."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from diffsampler.density import CheckedTarget, Density, or_zero_density
from diffsampler.errors import InputError
from diffsampler.target import Target

NUM_COMPARED = 16
MAX_ROUNDING = 1e-3  # nats
VALIDATION = re.compile(r"Expected (?:value argument|parameter) .* distribution (\w+)\(", re.DOTALL)
OF_FEWER_DIMENSIONS = {
    "Dirichlet": "points of a simplex",
    "LKJCholesky": "Cholesky factors of correlations",
    "Wishart": "symmetric matrices",
    "InverseWishart": "symmetric matrices",
}


class NetworkCounter:
    """Counts the states that control networks have been asked at, forward and backward ones alike.

    Who asks says so, by shapes alone: what is compiled, or recorded as a CUDA graph, runs no Python that could count.
    What a backward pass computes again is not counted.

    Attributes:
        num_evaluations: states so far.
    """

    def __init__(self) -> None:
        self.num_evaluations = 0


class CountedTarget:
    """A density whose evaluations are counted and checked; the way the library reads a target.

    One evaluation is one point, whether value, score or both are asked for. Counts of non-finite results stay on the
    device until they are read.

    Arguments:
        density: any; a target of the user's is checked on the way.

    Attributes:
        num_evaluations: points evaluated so far.
    """

    def __init__(self, density: Density | Target) -> None:
        self.density = CheckedTarget(density) if isinstance(density, Target) else density
        self.num_evaluations = 0
        self._num_invalid: Tensor | int = 0

    @property
    def dim(self) -> int:
        """D."""
        return self.density.dim

    @property
    def differentiable(self) -> bool:
        """Whether the score says anything."""
        return self.density.differentiable

    @property
    def name(self) -> str:
        """Of the user's class."""
        return self.density.name

    @property
    def rounding(self) -> float:
        """The relative error of values."""
        return self.density.rounding

    @property
    def needs_float64(self) -> bool:
        """Whether points of float32 are converted before they reach the target."""
        return self.density.needs_float64

    @property
    def num_invalid(self) -> int:
        """Points where log_prob was NaN or +inf, or where it was finite and the score was not."""
        return int(self._num_invalid)

    @num_invalid.setter
    def num_invalid(self, value: int) -> None:
        self._num_invalid = value

    def log_prob(self, x: Tensor) -> Tensor:
        """log R(x), float64, with shape (*), for x with shape (*, D)."""
        try:
            log_prob = self.density.log_prob(x)
        except ValueError as error:
            self.explain(error)
            raise
        self.count_values(log_prob)
        return log_prob

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log R(x), float64, and its gradient in the dtype of x, with shapes (*) and (*, D)."""
        log_prob, score = self.ask(x)
        self.count_values(log_prob, score)
        return log_prob, score

    def ask(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same, for who counts by `count_values`: all at once, after a loop."""
        try:
            return self.density.log_prob_and_score(x)
        except ValueError as error:
            self.explain(error)
            raise

    def differentiable_log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same by autograd, with gradients to x: the score is differentiated through `log_prob`."""
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            log_prob = self.log_prob(x)
            if not log_prob.requires_grad:
                raise InputError(
                    f"{self.name}.log_prob carries no gradient, but its score is differentiated here, by autograd: a "
                    "score by hand is not enough. Write log_prob in torch, or use a process without score."
                )
            (score,) = torch.autograd.grad(log_prob.sum(), x, create_graph=True)
        return log_prob, score

    def settled(self, x: Tensor, log_prob: Tensor) -> Tensor:
        """log_prob of points x with shape (n, D); evaluated again in float64 where float32 has rounded too much of it.

        Decided by the highest of the points, and once so for good: beside an additive constant of 1e8, float32 knows
        the rest to 8 nats. While a sampler is far from its target, rounding is no matter beside their spread.
        """
        if x.dtype == torch.float64 or self.needs_float64:
            return log_prob
        top = or_zero_density(log_prob).topk(min(NUM_COMPARED, len(x))).indices
        exact = self.log_prob(x[top].double())
        error = (exact - log_prob[top]).abs()
        usable = exact[exact.isfinite()]
        spread = usable.std(correction=0) if len(usable) else 1.0
        if not (error[error.isfinite()] > MAX_ROUNDING * max(1.0, float(spread))).any():
            return log_prob
        self.density.needs_float64 = True
        return self.log_prob(x)

    def count_values(self, log_prob: Tensor, score: Tensor | None = None) -> None:
        """Add the evaluations that values with shape (*), and scores with shape (*, D), have come from."""
        self.count(log_prob.numel(), _count_invalid(log_prob, score))

    def count(self, num_evaluations: int, num_invalid: Tensor) -> None:
        """Add evaluations, and how many of them were invalid, with shape ()."""
        self.num_evaluations += num_evaluations
        self._num_invalid = self._num_invalid + num_invalid

    @contextmanager
    def counting_apart(self) -> Iterator[Callable[[], tuple[int, Tensor]]]:
        """Leave out what is evaluated in this context; what it yields says how much that is, and how much invalid."""
        before = self.num_evaluations, self._num_invalid
        self._num_invalid = 0
        try:
            yield lambda: (self.num_evaluations - before[0], torch.as_tensor(self._num_invalid))
        finally:
            self.num_evaluations, self._num_invalid = before

    @contextmanager
    def reading(self, density: Density) -> Iterator[None]:
        """Count evaluations of another density, which asks the same target, as those of this one in this context."""
        own, self.density = self.density, density
        try:
            yield
        finally:
            self.density = own

    def explain(self, error: ValueError) -> None:
        """Say in one sentence what torch.distributions says at length of values outside of a support: InputError."""
        if (match := VALIDATION.search(str(error))) and match[1] in OF_FEWER_DIMENSIONS:
            raise InputError(
                f"{self.name}.log_prob asks {match[1]} of torch.distributions at all points of R^{self.dim}, but "
                f"{OF_FEWER_DIMENSIONS[match[1]]} have fewer dimensions than numbers. Write it as a model, whose "
                f"parameters know where they live: diffsampler.models.ModelTarget(prior={{'w': {match[1]}(...)}})."
            ) from error
        if match:
            raise InputError(
                f"{self.name}.log_prob raises outside of its support: {match[1]} of torch.distributions validates "
                "its arguments. Where x are parameters of a model, diffsampler.models.ModelTarget knows where each of "
                "them lives, simplexes and matrices too. Else make it with validate_args=False, and return -inf there, "
                "by torch.where: some distributions have finite values outside."
            ) from error


def _count_invalid(log_prob: Tensor, score: Tensor | None) -> Tensor:
    """At how many points a value is NaN or +inf, or finite with a score that is not, with shape ()."""
    if score is None:
        return log_prob.numel() - (log_prob < math.inf).sum()
    # In few operations, since some loops do this at every step: what is not finite times 0 is NaN.
    valid = (log_prob + (score * 0).sum(-1) < math.inf) | (log_prob == -math.inf)
    return log_prob.numel() - valid.sum()
