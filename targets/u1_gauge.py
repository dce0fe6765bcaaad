"""U(1) lattice gauge theory in two dimensions."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffsampler.errors import InputError, check_count, check_positive
from diffsampler.spaces import Links
from diffsampler.target import Target
from targets._angles import bessel_ratios, log_bessel_sum, sample_closed

__all__ = ["U1Gauge"]


class U1Gauge(Target):
    """log R(theta) = beta sum_p cos(theta_p), over the V = L_0 L_1 plaquettes of a periodic lattice, once each.

        theta_p(x) = theta_0(x) + theta_1(x + 0) - theta_0(x + 1) - theta_1(x)

    x holds the angles of the 2 V links, theta_0 of all sites first. The measure is flat, d theta on [-pi, pi), so that

        Z = (2 pi)^(2 V) sum_n I_n(beta)^V;

    with Haar measure, d theta / 2 pi, log Z is less by 2 V log 2 pi. For 4 x 4 and beta 2 it is 72.0022594, 13.1901933
    with Haar measure. Plaquettes are independent von Mises angles given that they sum to whole turns, 2 pi Q: that
    gives exact draws and the distribution of the topological charge Q.

    References:
        Wilson, Confinement of quarks, 1974, https://doi.org/10.1103/PhysRevD.10.2445 (the action).
        Migdal, Recursion equations in gauge field theories, 1975 (the sum over n).
        Kanwar et al., Equivariant flow-based sampling for lattice gauge theory, 2020, arXiv:2003.06413 (as a target).

    Arguments:
        shape: (L_0, L_1), at least 2 each.
        beta: the inverse coupling.
    """

    plot_range = (-math.pi, math.pi)

    def __init__(self, shape: Sequence[int] = (8, 8), beta: float = 2.0) -> None:
        if isinstance(shape, int) or len(shape) != 2:
            raise InputError(f"shape must be two numbers of sites, such as (8, 8), got {shape!r}.")
        self_shape = tuple(check_count("shape", size, minimum=2) for size in shape)
        space = Links(self_shape)
        super().__init__(space.dim)
        self.space = space
        self.shape = self_shape
        self.beta = float(check_positive("beta", beta))
        self.num_plaquettes = math.prod(self_shape)
        self.log_z = log_bessel_sum(self.beta, self.num_plaquettes) + self.dim * math.log(2 * math.pi)
        # no constants to hold: it tells `sample` the device
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.beta * self.space.plaquettes(x).cos().sum((-3, -2, -1))

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        plaquettes = self.space.plaquettes(x)
        score = self.space.around(plaquettes.sin().mul_(-self.beta))
        return plaquettes.cos().sum((-3, -2, -1)).mul_(self.beta), score

    def topological_charge(self, x: Tensor) -> Tensor:
        """Q = sum_p theta_p / 2 pi with every theta_p in [-pi, pi), a whole number, with shape (*)."""
        turns = self.space.plaquettes(x) / (2 * math.pi)
        return (turns - turns.round()).sum((-3, -2, -1)).round()

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The mean of cos(theta_p), the topological charge, its square, and whether it is 0."""
        return {
            "plaquette": lambda x: self.space.plaquettes(x).cos().mean((-3, -2, -1)),
            "topological_charge": self.topological_charge,
            "topological_charge_squared": lambda x: self.topological_charge(x).square(),
            "no_topological_charge": lambda x: (self.topological_charge(x) == 0).to(x.dtype),
        }

    @property
    def exact_observables(self) -> dict[str, float]:
        """The means of `observables`, by sums of Bessel functions."""
        ratios = bessel_ratios(self.beta)
        slopes = torch.cat([ratios[1:2], (ratios[:-2] + ratios[2:]) / 2])  # I_n' = (I_{n - 1} + I_{n + 1}) / 2
        both = torch.stack([slopes, ratios[:-1]]) * ratios[:-1] ** (self.num_plaquettes - 1)
        above, below = (2 * both.sum(-1) - both[:, 0]).tolist()  # of all whole n
        charges, probabilities = self.charge_distribution()
        return {
            "plaquette": above / below,
            "topological_charge": 0.0,
            "topological_charge_squared": float(probabilities @ charges.square()),
            "no_topological_charge": float(probabilities[charges == 0].sum()),
        }

    def charge_distribution(self) -> tuple[Tensor, Tensor]:
        """All values of Q and their probabilities, float64.

        P(Q) is the density at 2 pi Q of the sum of V von Mises angles in [-pi, pi), from its Fourier transform f^V,
        f(t) = sum_n (I_n / I_0) sin(pi (t - n)) / (pi (t - n)). The sum ends at pi V: steps of 1 / V in t are exact.
        """
        volume = self.num_plaquettes
        ratios = bessel_ratios(self.beta)
        orders = torch.arange(1 - len(ratios), len(ratios), dtype=torch.float64)
        weights = torch.cat([ratios[1:].flip(0), ratios])
        # |f| falls like 1 / (pi t) beyond the orders that matter, and f^V to 1e-18
        last = len(ratios) + 10 ** (18 / volume)
        t = torch.arange(math.ceil(last * volume), dtype=torch.float64) / volume
        transform = torch.cat([torch.sinc(part.unsqueeze(-1) - orders) @ weights for part in t.split(4096)]) ** volume
        charges = torch.arange(-(volume // 2), volume // 2 + 1, dtype=torch.float64)
        factors = torch.where(t == 0, 1.0, 2.0) * transform
        densities = torch.stack([(2 * math.pi * q * t).cos() @ factors for q in charges.tolist()]).clamp(min=0)
        return charges, densities / densities.sum()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        device = self._anchor.device
        rows, columns = self.shape
        plaquettes = sample_closed(n, self.num_plaquettes, self.beta, generator, device).reshape(n, rows, columns)
        uniform = torch.rand(n, self.num_plaquettes + 2, generator=generator, dtype=torch.float64, device=device)
        free = math.pi * (2 * uniform - 1)
        # The gauge in which only links of theta_1 and those of theta_0 in the last row are not 0 but for one winding
        # angle in each direction; then a random one.
        theta_0, theta_1 = torch.zeros(2, n, rows, columns, dtype=torch.float64, device=device)
        theta_1[:, 1:] = plaquettes[:, :-1].cumsum(1)
        theta_0[:, -1, 1:] = -plaquettes.sum(1)[:, :-1].cumsum(1)
        theta_0[:, -1] += free[:, -1:]
        theta_1[:, :, -1] += free[:, -2:-1]
        gauge = free[:, :-2].reshape(n, rows, columns)
        links = [theta_0 + gauge - gauge.roll(-1, 1), theta_1 + gauge - gauge.roll(-1, 2)]
        return self.space.wrap(torch.stack(links, 1).flatten(1)).to(torch.get_default_dtype())
