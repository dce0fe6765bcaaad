"""What importance weights compare a rollout with."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class PathMeasure(nn.Module, ABC):
    """A measure on paths, but for the density R of where they end:  R(x_T) m_0(x_0) prod_k m(x_k, x_{k+1}).

    Without one, m_0 = 1 and m is the policy's own backward kernel, so that weights are those of R. With the forward
    measure of another sampler, R is a reward on its draws, and Z the mean reward: fine-tuning. The kernel that walks
    back stays the policy's.

    References:
        Amortizing intractable inference in diffusion models, Venkatraman et al., 2024, arXiv:2405.20971 (relative
            trajectory balance).

    Attributes:
        uses_score: whether `log_step` takes, after y, the score that networks take at x, held fixed: of the guide.
        compare: what stands beside an estimate by it, as a next step of a verdict that lacks that.
        apart: what to do where that differs; None for what is said of densities.
    """

    uses_score: bool = False
    compare: str = "Compare: assess(sampler, reference=...), with an estimate that the sampler had no part in."
    apart: str | None = None

    @abstractmethod
    def log_start(self, x: Tensor) -> Tensor:
        """log m_0, with shape (*), for x_0 with shape (*, D)."""

    @abstractmethod
    def log_step(self, s: Tensor, t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """log m of steps from x at s to y at t, with shape (*), for states with shape (*, D).

        Times are tensors that broadcast against the states: () in a rollout, (T, 1, 1) in the batched pass.
        """
