"""A learned mixture of Gaussians."""

import torch
from torch import Tensor, nn

from diffsampler.errors import check_count, check_positive
from diffsampler.priors.base import Prior
from diffsampler.renamed import knows_old_names
from diffsampler.spaces import Space
from diffsampler.spaces.kernels import GaussianKernel


class GaussianMixturePrior(Prior):
    """A mixture of Gaussians with diagonal covariances, whose weights, means and variances are learned.

    References:
        End-to-end learning of Gaussian mixture priors for diffusion samplers, Blessing et al., 2025, arXiv:2503.00524.

    Arguments:
        space: R^D, or D.
        num_components: at least 1.
        scale: the standard deviation of every component before training; positive.
        spread: the standard deviation of the means before training; positive.
        seed: of the means.
        learnable: whether training moves weights, means and variances.
    """

    @knows_old_names
    def __init__(
        self,
        space: Space | int,
        num_components: int = 10,
        scale: float = 1.0,
        spread: float = 1.0,
        seed: int = 0,
        learnable: bool = True,
    ) -> None:
        super().__init__(space)
        self.scale = float(check_positive("scale", scale))
        self.spread = float(check_positive("spread", spread))
        shape = (check_count("num_components", num_components), self.space.dim)
        generator = torch.Generator("cpu").manual_seed(check_count("seed", seed, minimum=0))
        self.logits = nn.Parameter(torch.zeros(num_components), learnable)
        # In units of the spread and the scale, as in GaussianPrior.
        position = torch.randn(shape, generator=generator, device="cpu").to(self.logits.device)
        self.position = nn.Parameter(position, learnable)
        self.log_factor = nn.Parameter(torch.zeros(shape), learnable)

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        component = torch.multinomial(self.logits.softmax(0), len(like), replacement=True, generator=generator)
        loc, std = self._moments(like)
        return GaussianKernel(loc[component], std[component]).rsample(generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_joint(x).logsumexp(-1)

    def score(self, x: Tensor) -> Tensor:
        loc, std = self._moments(x)
        responsibility = self._log_joint(x).softmax(-1).to(x.dtype)
        precision = std.square().reciprocal().to(x.dtype)
        return responsibility @ (loc * precision) - x * (responsibility @ precision)

    @property
    def std(self) -> Tensor:
        return torch.tensor((self.scale**2 + self.spread**2) ** 0.5, dtype=torch.float64)

    def _log_joint(self, x: Tensor) -> Tensor:
        """log of weight and density of each component, with shape (*, K)."""
        loc, std = self._moments(x)
        return self.logits.double().log_softmax(0) + GaussianKernel(loc, std).log_prob(x.unsqueeze(-2))

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return (self.spread * self.position).to(like.dtype), self.scale * self.log_factor.double().exp()
