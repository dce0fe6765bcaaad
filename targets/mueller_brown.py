"""The Mueller-Brown surface."""

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from diffsampler.errors import check_positive
from diffsampler.observables import HeatCapacity
from diffsampler.target import Target

__all__ = ["MuellerBrown"]

# A, a, b, c and the centre (x, y) of each of the four terms.
TERMS = (
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)
DEEPEST = -500.0  # below the sum of the three wells
TOLERANCE = 1e-10
MAX_POINTS = 3200


class MuellerBrown(Target):
    """log R(x, y) = -beta V, V = sum_k A_k exp(a_k (x - x_k)^2 + b_k (x - x_k) (y - y_k) + c_k (y - y_k)^2).

    Three minima: V = -146.70 near (-0.558, 1.442), -108.17 near (0.623, 0.028) and -80.77 near (-0.050, 0.467). log Z
    is by the trapezoidal rule on a square that holds all but exp(-40) of the mass, refined until it stays.

    Mueller & Brown, Location of saddle points and minimum energy paths, 1979, https://doi.org/10.1007/BF00547608.

    Arguments:
        beta: the inverse temperature, in units of 1 / V; papers differ, and some multiply V by a scale.
    """

    plot_range = (-2.0, 2.2)

    def __init__(self, beta: float = 0.1) -> None:
        super().__init__(2)
        self.beta = float(check_positive("beta", beta))
        self.register_buffer("terms", torch.tensor(TERMS, dtype=torch.float64), persistent=False)

    def energy(self, x: Tensor) -> Tensor:
        """V, with shape (*), without beta."""
        return self._parts(x)[0].sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        return -self.beta * self.energy(x)

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts, along, across = self._parts(x)
        _, a, b, c, _, _ = self.terms.T.to(x.dtype)
        slopes = [parts * (2 * a * along + b * across), parts * (b * along + 2 * c * across)]
        score = torch.stack([slope.sum(-1) for slope in slopes], -1).mul_(-self.beta)
        return parts.sum(-1) * -self.beta, score

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """V, its square and the heat capacity; both coordinates; the share of the lowest basin, taken as y > 0.8."""
        return {
            "energy": self.energy,
            "energy_squared": lambda x: self.energy(x).square(),
            "heat_capacity": HeatCapacity(self.energy, self.beta),
            "x": lambda x: x[..., 0],
            "y": lambda x: x[..., 1],
            "upper_basin": lambda x: (x[..., 1] > 0.8).to(x.dtype),
        }

    @cached_property
    def log_z(self) -> float | None:
        previous, size = math.inf, 200
        while size <= MAX_POINTS:
            points, log_cell = self._grid(size)
            log_z = float(self.log_prob(points).logsumexp(0)) + log_cell
            if abs(log_z - previous) < TOLERANCE:
                return log_z
            previous, size = log_z, 2 * size
        return None  # so cold that the wells fall between the points

    @property
    def exact_observables(self) -> dict[str, float]:
        """The means of `observables` but for the share, whose edge a grid does not resolve, by the same rule."""
        points, _ = self._grid(MAX_POINTS // 2)
        weights = self.log_prob(points).softmax(0)
        known = [name for name in self.observables if name not in ("upper_basin", "heat_capacity")]
        means = {name: float(weights @ self.observables[name](points)) for name in known}
        return {**means, "heat_capacity": self.beta**2 * (means["energy_squared"] - means["energy"] ** 2)}

    def _grid(self, size: int) -> tuple[Tensor, float]:
        """Points of the trapezoidal rule, and the log of a cell's area.

        The last term, at least 15 exp(0.4 r^2) at a distance r of its centre, ends the square.
        """
        centre = self.terms[3, 4:]
        reach = math.sqrt(math.log((40 / self.beta - DEEPEST) / TERMS[3][0]) / 0.4)
        line = torch.linspace(-reach, reach, size + 1, dtype=torch.float64, device=centre.device)
        return centre + torch.cartesian_prod(line, line), 2 * math.log(2 * reach / size)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The four terms and the distances from their centres, with shape (*, 4)."""
        height, a, b, c, x_centre, y_centre = self.terms.T.to(x.dtype)
        along, across = x[..., :1] - x_centre, x[..., 1:] - y_centre
        return height * (along * (a * along + b * across) + c * across * across).exp(), along, across
