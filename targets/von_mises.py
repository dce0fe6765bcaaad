"""A product of mixtures of von Mises densities: angles, asymmetric, normalised."""

import math

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count
from diffsampler.spaces import Circle
from diffsampler.target import Target
from targets._angles import sample_von_mises
from targets._inputs import to_tensor

__all__ = ["VonMisesMixture"]


class VonMisesMixture(Target):
    """p(x) = prod_i sum_k w_k exp(kappa_k cos(x_i - mu_k - shift i)) / (2 pi I_0(kappa_k)) on [-pi, pi)^D; log Z = 0.

    Every coordinate has the same mixture, turned by `shift` radians from one to the next, so that no two are alike.

    Mardia & Jupp, Directional Statistics, 2000 (densities); Best & Fisher, Efficient simulation of the von Mises
    distribution, 1979, https://doi.org/10.2307/2346732 (exact samples).

    Arguments:
        dim: the dimension D.
        locations: the centres mu_k in radians.
        concentrations: the kappa_k, positive.
        weights: in proportion to which the components are mixed; positive.
        shift: in radians.
    """

    log_z = 0.0
    plot_range = (-math.pi, math.pi)

    def __init__(
        self,
        dim: int = 2,
        locations: list[float] | Tensor = (-1.5, 0.9),
        concentrations: list[float] | Tensor = (6.0, 3.0),
        weights: list[float] | Tensor = (0.3, 0.7),
        shift: float = 0.5,
    ) -> None:
        super().__init__(check_count("dim", dim))
        self.space = Circle(dim)
        parts = {"locations": locations, "concentrations": concentrations, "weights": weights}
        locations, concentrations, weights = (
            to_tensor(name, value, [1], "a list of numbers") for name, value in parts.items()
        )
        if not len(locations) == len(concentrations) == len(weights):
            raise InputError("locations, concentrations and weights must be of one length.")
        if not ((concentrations >= 1e-6).all() and (weights > 0).all()):
            raise InputError("concentrations must be positive, at least 1e-6, and weights must be positive.")
        self.register_buffer("centres", locations + shift * torch.arange(dim)[:, None], persistent=False)
        self.register_buffer("concentrations", concentrations, persistent=False)
        self.register_buffer("weights", weights / weights.sum(), persistent=False)
        # i0e is I_0 scaled by exp(-kappa): no overflow.
        log_bessel = torch.special.i0e(concentrations).log() + concentrations
        self.register_buffer("_offsets", self.weights.log() - math.log(2 * math.pi) - log_bessel, persistent=False)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_joint(x)[0].logsumexp(-1).sum(-1)

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_joint, difference = self._log_joint(x)
        slope = -self.concentrations.to(x.dtype) * difference.sin()
        return log_joint.logsumexp(-1).sum(-1), (log_joint.softmax(-1) * slope).sum(-1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        dtype, device = torch.get_default_dtype(), self.centres.device
        if n == 0:  # torch.multinomial refuses to draw nothing
            return torch.empty(0, self.dim, device=device, dtype=dtype)
        component = torch.multinomial(self.weights, n * self.dim, replacement=True, generator=generator)
        component = component.reshape(n, self.dim)
        angle = sample_von_mises(self.concentrations[component], generator)
        x = angle + torch.gather(self.centres.expand(n, -1, -1), 2, component.unsqueeze(-1)).squeeze(-1)
        return (torch.remainder(x + math.pi, 2 * math.pi) - math.pi).to(dtype=dtype, device=device)

    def _log_joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log of weight times density, and x - mu, for every component: with shape (*, D, K)."""
        difference = x.unsqueeze(-1) - self.centres.to(x.dtype)
        return self._offsets.to(x.dtype) + self.concentrations.to(x.dtype) * difference.cos(), difference
