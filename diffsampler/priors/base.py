"""What a prior is."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffsampler.spaces import Space, as_space


class Prior(nn.Module, ABC):
    """A normalised density on a space that can be sampled.

    Arguments:
        space: of its draws; a number stands for R^D of that dimension.

    Attributes:
        reparametrised: whether `sample` carries gradients to the parameters, which path-wise losses need.
        is_point: whether it is a single point, whose log-density counts as 0.
        is_partly_point: whether some coordinates, but not all, are a single point.
    """

    reparametrised: bool = False
    is_point: bool = False
    is_partly_point: bool = False

    def __init__(self, space: Space | int) -> None:
        super().__init__()
        self.space = as_space(space)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """n draws, with shape (n, D)."""
        return self.draw(torch.empty(n, self.space.dim, dtype=dtype, device=device), generator)

    @abstractmethod
    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draws with the shape (n, D), dtype and device of a tensor, whose values say nothing."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density, with shape (*), for x with shape (*, D)."""

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """The gradient of `log_prob`, with shape (*, D)."""

    @property
    def std(self) -> Tensor:
        """How wide it is before training, with shape () or (D): the unit of states; 1 where there is none."""
        return torch.ones((), dtype=torch.float64)
