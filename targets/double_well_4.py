"""DW-4: four particles in the plane, whose pairs have two preferred distances."""

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from targets._pairs import PairTarget

__all__ = ["DoubleWell4"]

QUADRATIC, QUARTIC, DISTANCE = -4.0, 0.9, 4.0
LOWEST = -(QUADRATIC**2) / (4 * QUARTIC)  # the energy of a pair at its two preferred distances
REACH = 8.0  # a pair farther apart has a weight below exp(-170) of the highest
BIN = 0.2
MAX_PROPOSALS = 400_000


class DoubleWell4(PairTarget):
    """log R(x) = -sum_{i < j} [0.9 (d_ij - 4)^4 - 4 (d_ij - 4)^2] for four particles in the plane, x in R^8.

    **Every pair counts once.** Papers print other constants, the square of a norm or pairs counted twice; this is what
    the code of the benchmark computes. Moving all particles changes nothing: log Z is that of configurations of mean 0
    with the volume of R^6 there, 29.6672322329, by quadrature. With r the distance of the first two,

        Z = 1/4 int 2 pi r w(r) int int f_r(p) w(|p - q|) f_r(q) dp dq dr,   f_r(p) = w(|p - r/2|) w(|p + r/2|),

    with w the weight of one pair, and the inner integrals on a grid. Exact draws are by rejection. The reference
    samples that the literature compares with have a mean distance of 3.974; the exact one is 4.0450.

    References:
        Equivariant flows, Kohler, Klein & Noe, 2020, arXiv:2006.02425.
        Iterated denoising energy matching, Akhound-Sadegh et al., 2024, arXiv:2402.06121 (the benchmark).
    """

    self_distance = DISTANCE

    def __init__(self) -> None:
        super().__init__(4, 2, trap=0.0, distance_edges=[BIN * k for k in range(round(REACH / BIN) + 1)])
        # no constants to hold: it tells `sample` the device
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    def pair_energy(self, squared: Tensor) -> Tensor:
        stretch = (squared.sqrt() - DISTANCE).square()
        return (QUARTIC * stretch + QUADRATIC) * stretch

    def pair_energy_and_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        distance = squared.sqrt()
        offset = distance - DISTANCE
        stretch = offset * offset
        slope = (2 * QUARTIC * stretch + QUADRATIC) * offset / distance
        # Where two coincide the pull has no direction.
        return (QUARTIC * stretch + QUADRATIC) * stretch, slope.masked_fill_(distance == 0, 0.0)

    @cached_property
    def log_z(self) -> float:
        log_z, _, _ = self._by_quadrature
        return log_z

    @property
    def exact_observables(self) -> dict[str, float]:
        """The means of some of `observables`, by the same quadrature: all pairs are alike."""
        _, distances, weights = self._by_quadrature
        energy = self.pair_energy(distances.square())
        return {"energy": 6 * float(weights @ energy), "pair_distance": float(weights @ distances)}

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        kept, missing = [torch.empty(0, self.dim, dtype=torch.float64, device=self._anchor.device)], n
        while missing > 0:
            kept.append(self._some_draws(min(MAX_PROPOSALS, 600 * missing), generator)[:missing])
            missing -= len(kept[-1])
        return torch.cat(kept).to(torch.get_default_dtype())

    def _some_draws(self, size: int, generator: torch.Generator | None) -> Tensor:
        """Exact draws, with shape (k, 8) for a random k, about one in 450 of the proposals.

        Proposed are the other three particles around the first, each with the density r w(r) of its distance, kept
        are they by the weights of the three pairs that this leaves out. Most fall with the first of these.
        """
        first, second = (self._proposed(size, generator) for _ in range(2))
        kept = self._uniform(size, generator) < first[2] * second[2] * _relative_weight(first, second)
        first, second = first[:, kept], second[:, kept]
        third = self._proposed(first.shape[1], generator)
        ratio = third[2] * _relative_weight(first, third) * _relative_weight(second, third)
        kept = self._uniform(len(ratio), generator) < ratio
        others = torch.stack([first[:2, kept], second[:2, kept], third[:2, kept]]).movedim(-1, 0)
        return self._centred(torch.cat([torch.zeros_like(others[:, :1]), others], 1).flatten(-2)).flatten(-2)

    def _proposed(self, size: int, generator: torch.Generator | None) -> Tensor:
        """Positions around the origin and the probability to keep each, with shape (3, size).

        The distance is uniform in one of the cells of `_cells`, whose height is above the density.
        """
        edges, heights = (part.to(self._anchor.device) for part in _cells())
        widths = edges.diff()
        cumulative = (heights * widths).cumsum(0)
        cell = torch.searchsorted(cumulative, cumulative[-1] * self._uniform(size, generator), right=True)
        cell.clamp_(max=len(heights) - 1)
        r = edges[cell] + widths[cell] * self._uniform(size, generator)
        angle = 2 * math.pi * self._uniform(size, generator)
        return torch.stack([r * angle.cos(), r * angle.sin(), r * (-self.pair_energy(r * r)).exp() / heights[cell]])

    def _uniform(self, size: int, generator: torch.Generator | None) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64, device=self._anchor.device)

    @cached_property
    def _by_quadrature(self) -> tuple[float, Tensor, Tensor]:
        """log Z; nodes of the distance of a pair and their probabilities. Steps of 0.1 and 96 nodes leave 1e-11."""
        nodes, weights = np.polynomial.legendre.leggauss(96)
        distances, weights = REACH / 2 * (nodes + 1), REACH / 2 * weights
        step, half = 0.1, round(REACH / 0.1)
        line = step * np.arange(-half, half + 1)
        padded, middle = (4 * half + 1,) * 2, slice(half, 3 * half + 1)
        kernel = np.fft.rfft2(self._weight(np.hypot(line[:, None], line)), padded)
        integrals = []
        for r in distances:
            both = self._weight(np.hypot(line[:, None] - r / 2, line)) * self._weight(
                np.hypot(line[:, None] + r / 2, line)
            )
            convolved = np.fft.irfft2(kernel * np.fft.rfft2(both, padded), padded)[middle, middle]
            integrals.append(float((both * convolved).sum()) * step**4)
        terms = weights * 2 * math.pi * distances * self._weight(distances) * integrals
        return math.log(terms.sum() / 4), torch.from_numpy(distances), torch.from_numpy(terms / terms.sum())

    def _weight(self, distances: np.ndarray) -> np.ndarray:
        return (-self.pair_energy(torch.from_numpy(distances).square())).exp().numpy()


def _relative_weight(first: Tensor, second: Tensor) -> Tensor:
    """Of the pairs of two rows of particles in the plane, at most 1."""
    stretch = (torch.hypot(first[0] - second[0], first[1] - second[1]) - DISTANCE).square()
    return ((QUARTIC * stretch + QUADRATIC) * -stretch + LOWEST).exp()


def _cells() -> tuple[Tensor, Tensor]:
    """Edges (k + 1) of cells of distance, and bounds (k) of r w(r) there: w is monotone inside of each."""
    turn = math.sqrt(-QUADRATIC / (2 * QUARTIC))
    turning = torch.tensor([DISTANCE - turn, DISTANCE, DISTANCE + turn], dtype=torch.float64)
    edges = torch.cat([torch.linspace(0, REACH, 401, dtype=torch.float64), turning]).unique()
    stretch = (edges - DISTANCE).square()
    weights = ((QUARTIC * stretch + QUADRATIC) * -stretch).exp()
    return edges, edges[1:] * torch.maximum(weights[1:], weights[:-1])
