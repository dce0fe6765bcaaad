"""Priors: what a process starts from, fixed or learned.

Their parameters depend on the dimension, which a prior learns from the process that owns it: `adapt`.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.kernels import GaussianKernel

__all__ = ["GaussianMixturePrior", "GaussianPrior", "Prior", "is_adapted"]


def is_adapted(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether `module.log_factor` is there already: what two samplers share keeps what it has learned."""
    return getattr(module, "log_factor", None) is not None and module.log_factor.shape == shape


class Prior(nn.Module, ABC):
    """A normalised density on R^D that can be sampled.

    Attributes:
        reparametrised: whether `sample` carries gradients to the parameters, which path-wise losses need.
    """

    reparametrised: bool = False

    @abstractmethod
    def adapt(self, dim: int) -> None:
        """Make the parameters for states of dimension D, unless they are there; called before anything else."""

    @abstractmethod
    def sample(
        self, n: int, generator: torch.Generator | None, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        """n draws, with shape (n, D)."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density, with shape (*), for x with shape (*, D)."""

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """The gradient of `log_prob`, with shape (*, D)."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """A standard deviation that says how wide the prior is before training, with shape () or (D)."""


class GaussianPrior(Prior):
    """N(loc, diag(scale^2)).

    Arguments:
        loc: the mean of every coordinate.
        width: the standard deviation of every coordinate; positive.
        learnable: whether training moves both, each coordinate by itself.
    """

    reparametrised = True

    def __init__(self, loc: float = 0.0, width: float = 1.0, learnable: bool = True) -> None:
        super().__init__()
        if not math.isfinite(loc):
            raise InputError(f"loc must be a finite number, got {loc!r}.")
        self.initial_loc = float(loc)
        self.initial_width = float(check_positive("width", width))
        self.learnable = learnable

    def adapt(self, dim: int) -> None:
        if is_adapted(self, (dim,)):
            return
        self.loc = nn.Parameter(torch.full((dim,), self.initial_loc), self.learnable)
        # In units of the initial width: an optimiser's step then means the same for every width.
        self.log_factor = nn.Parameter(torch.zeros(dim), self.learnable)

    def sample(
        self, n: int, generator: torch.Generator | None, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        loc = self.loc.to(self.loc.dtype if dtype is None else dtype).expand(n, -1)
        return GaussianKernel(loc, self._std()).rsample(generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return GaussianKernel(self.loc.to(x.dtype), self._std()).log_prob(x)

    def score(self, x: Tensor) -> Tensor:
        return (self.loc.to(x.dtype) - x) / self._std().square().to(x.dtype)

    @property
    def scale(self) -> Tensor:
        return torch.tensor(self.initial_width, dtype=torch.float64)

    def _std(self) -> Tensor:
        return self.initial_width * self.log_factor.double().exp()


class GaussianMixturePrior(Prior):
    """A mixture of Gaussians with diagonal covariances, whose weights, means and variances are learned.

    References:
        End-to-end learning of Gaussian mixture priors for diffusion samplers, Blessing et al., 2025, arXiv:2503.00524.

    Arguments:
        num_components: at least 1.
        width: the standard deviation of every component before training; positive.
        spread: the standard deviation of the means before training; positive.
        seed: of the means.
        learnable: whether training moves weights, means and variances.
    """

    def __init__(
        self,
        num_components: int = 10,
        width: float = 1.0,
        spread: float = 1.0,
        seed: int = 0,
        learnable: bool = True,
    ) -> None:
        super().__init__()
        self.num_components = check_count("num_components", num_components)
        self.initial_width = float(check_positive("width", width))
        self.spread = float(check_positive("spread", spread))
        self.seed = check_count("seed", seed, minimum=0)
        self.learnable = learnable

    def adapt(self, dim: int) -> None:
        shape = (self.num_components, dim)
        if is_adapted(self, shape):
            return
        generator = torch.Generator().manual_seed(self.seed)
        self.logits = nn.Parameter(torch.zeros(self.num_components), self.learnable)
        # In units of the spread and the width, as in GaussianPrior.
        self.position = nn.Parameter(torch.randn(shape, generator=generator), self.learnable)
        self.log_factor = nn.Parameter(torch.zeros(shape), self.learnable)

    def sample(
        self, n: int, generator: torch.Generator | None, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        component = torch.multinomial(self.logits.softmax(0), n, replacement=True, generator=generator)
        loc, std = self._moments(torch.empty((), dtype=self.logits.dtype if dtype is None else dtype))
        return GaussianKernel(loc[component], std[component]).rsample(generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_joint(x).logsumexp(-1)

    def score(self, x: Tensor) -> Tensor:
        loc, std = self._moments(x)
        responsibility = self._log_joint(x).softmax(-1).to(x.dtype)
        precision = std.square().reciprocal().to(x.dtype)
        return responsibility @ (loc * precision) - x * (responsibility @ precision)

    @property
    def scale(self) -> Tensor:
        return torch.tensor((self.initial_width**2 + self.spread**2) ** 0.5, dtype=torch.float64)

    def _log_joint(self, x: Tensor) -> Tensor:
        """log of weight and density of each component, with shape (*, K)."""
        loc, std = self._moments(x)
        return self.logits.double().log_softmax(0) + GaussianKernel(loc, std).log_prob(x.unsqueeze(-2))

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return (self.spread * self.position).to(like.dtype), self.initial_width * self.log_factor.double().exp()
