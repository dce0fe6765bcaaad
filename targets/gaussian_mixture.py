"""Mixtures of Gaussians: any means, scales and weights, and the three grids and clouds of the literature."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.target import Target
from targets._inputs import to_tensor

__all__ = ["GaussianMixture", "GaussianMixture25", "GaussianMixture40", "GaussianMixture9"]


class GaussianMixture(Target):
    """The normalised mixture sum_k w_k N(x; means_k, diag(scales_k^2)) on R^D; log Z = 0.

    A component's log-density is linear in (x, x^2), so that one matrix product in float64 serves all K components at
    once, and its transpose the score. float32 would lose |x|^2 / scale^2 units in the last place to cancellation, 0.03
    nats at 40 modes in 50 dimensions; float64 keeps the error below 1e-5 there and costs no more.

    Arguments:
        means: K lists of D numbers.
        scales: standard deviations: one number, one for each component (K numbers), or one for each component and
            coordinate (K x D).
        weights: K positive numbers, normalised here; equal if None.
    """

    log_z = 0.0

    def __init__(
        self,
        means: list[list[float]] | Tensor,
        scales: float | list[float] | list[list[float]] | Tensor = 1.0,
        weights: list[float] | Tensor | None = None,
    ) -> None:
        means = to_tensor("means", means, [2], "K lists of D numbers")
        num_modes, dim = means.shape
        super().__init__(dim)
        accepted = f"positive: one number, {num_modes} numbers or {num_modes} x {dim} numbers"
        scales = to_tensor("scales", scales, [0, 1, 2], accepted)
        if scales.shape not in ((), (num_modes,), (num_modes, dim)):
            raise InputError(f"scales must be {accepted}, got shape {tuple(scales.shape)}.")
        if not (scales > 0).all():
            raise InputError(f"scales must be {accepted}, got a smallest scale of {float(scales.min()):g}.")
        scales = (scales.unsqueeze(-1) if scales.ndim == 1 else scales).expand(num_modes, dim).clone()

        accepted = f"{num_modes} positive numbers, one for each row of means"
        weights = to_tensor("weights", [1.0] * num_modes if weights is None else weights, [1], accepted)
        if len(weights) != num_modes:
            raise InputError(f"weights must be {accepted}, got {len(weights)} numbers.")
        if not (weights > 0).all():
            raise InputError(f"weights must be {accepted}, got a smallest weight of {float(weights.min()):g}.")
        weights = weights / weights.sum()

        precisions = scales**-2
        slopes = torch.cat([means * precisions, -0.5 * precisions], dim=-1)
        offsets = -0.5 * (means**2 * precisions).sum(-1) - scales.log().sum(-1) - 0.5 * dim * math.log(2 * math.pi)
        self.register_buffer("means", means, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("_slopes", slopes, persistent=False)
        self.register_buffer("_offsets", offsets + weights.log(), persistent=False)
        self.plot_range = (float((means - 4 * scales).min()), float((means + 4 * scales).max()))

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self._log_joint(x.double()), dim=-1).to(x.dtype)

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = x.double()
        log_joint = self._log_joint(wide)
        # softmax and logsumexp by hand: torch's own take twice the time for a few columns
        top = log_joint.amax(-1, keepdim=True)
        joint = (log_joint - top).exp_()
        total = joint.sum(-1, keepdim=True)
        log_prob = (top + total.log()).squeeze(-1)
        linear, quadratic = (joint @ self._slopes.double()).div_(total).chunk(2, dim=-1)
        score = torch.addcmul(linear, wide, quadratic, value=2.0)
        return log_prob.to(x.dtype), score.to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        dtype, device = torch.get_default_dtype(), self.means.device
        if n == 0:  # torch.multinomial refuses to draw nothing
            return torch.empty(0, self.dim, device=device, dtype=dtype)
        mode = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, device=device, dtype=dtype)
        return self.means.to(dtype)[mode] + self.scales.to(dtype)[mode] * noise

    @torch.no_grad()
    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Each sample goes to its most responsible component; masses are relative to the true weights.

        `modes_found` counts the modes with at least a tenth of their weight. Where modes overlap the exact ratios
        differ from 1.
        """
        mode = self._log_joint(x.double()).argmax(-1).flatten()
        mass = torch.bincount(mode, minlength=len(self.means)).double() / mode.numel()
        ratio = mass / self.weights
        return {
            "modes_found": float((ratio >= 0.1).sum()),
            "min_mode_mass_ratio": float(ratio.min()),
            "max_mode_mass_ratio": float(ratio.max()),
        }

    def _log_joint(self, wide: Tensor) -> Tensor:
        """log of w_k N(x; k), with shape (*, K), in float64."""
        features = torch.cat([wide, wide * wide], dim=-1)
        return F.linear(features, self._slopes.double(), self._offsets.double())


class GaussianMixture9(GaussianMixture):
    """Nine equal modes on the grid {-5, 0, 5}^2 with variance 0.3; log Z = 0.

    Zhang & Chen, Path Integral Sampler, 2022, https://arxiv.org/abs/2111.15141.
    """

    def __init__(self) -> None:
        super().__init__(_make_grid([-5.0, 0.0, 5.0]), scales=math.sqrt(0.3))
        self.plot_range = (-8.0, 8.0)


class GaussianMixture25(GaussianMixture):
    """Twenty-five equal modes on the grid {-10, -5, 0, 5, 10}^2 with variance 0.3; log Z = 0.

    Sendera et al., Improved off-policy training of diffusion samplers, 2024, https://arxiv.org/abs/2402.05098.
    """

    def __init__(self) -> None:
        super().__init__(_make_grid([-10.0, -5.0, 0.0, 5.0, 10.0]), scales=math.sqrt(0.3))
        self.plot_range = (-14.0, 14.0)


class GaussianMixture40(GaussianMixture):
    """Forty equal modes with means uniform in [-40, 40]^D; log Z = 0.

    Midgley et al., Flow Annealed Importance Sampling Bootstrap, 2023, https://arxiv.org/abs/2208.01893. With the
    default arguments the means are those that FAB's code draws after `torch.manual_seed(0)`, and the scale is its
    softplus(1).

    Arguments:
        dim: the dimension D.
        scale: the modes' standard deviation. None takes the literature's: softplus(1) = 1.3133 in two dimensions, 1 in
            any other.
        seed: of the means.
    """

    def __init__(self, dim: int = 2, scale: float | None = None, seed: int = 0) -> None:
        check_count("dim", dim)
        check_count("seed", seed, minimum=0)
        if scale is None:
            scale = math.log1p(math.e) if dim == 2 else 1.0
        check_positive("scale", scale)
        generator = torch.Generator().manual_seed(seed)
        means = (torch.rand(40, dim, generator=generator, dtype=torch.float32) - 0.5) * 80
        super().__init__(means, scales=scale)
        self.plot_range = (-50.0, 50.0)


def _make_grid(values: list[float]) -> list[list[float]]:
    return [[first, second] for first in values for second in values]
