"""Particles whose energy is a sum over pairs of a function of their distance, with its forces in closed form.

Shared by `DoubleWell4` and `LennardJones`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from diffsampler.observables import HeatCapacity, Observable
from diffsampler.spaces import Particles
from diffsampler.target import Target

__all__ = ["PairTarget"]

CACHED = 2**17  # distances that a core's cache holds: LJ-55 takes a third of the time


class Shares(Observable):
    """Which share of the numbers of a draw is in each bin, with shape (n, k).

    Arguments:
        f: the numbers of x, with shape (n, m), for x with shape (n, D).
        edges: of the k bins, ascending.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], edges: Sequence[float]) -> None:
        self.f = f
        self.edges = torch.tensor(edges, dtype=torch.float64, device="cpu")

    def __call__(self, x: Tensor) -> Tensor:
        numbers, edges = self.f(x).unsqueeze(-1), self.edges.to(x)
        return ((numbers >= edges[:-1]) & (numbers < edges[1:])).to(x.dtype).mean(-2)


class PairTarget(Target):
    """log R(x) = -sum_{i < j} v(|x_i - x_j|^2) - (trap / 2) sum_i |x_i - mean|^2: every pair counts once.

    log Z is that of configurations of mean 0, with the volume of R^((n - 1) d) there: `diffsampler.spaces.Particles`.

    Arguments:
        num_particles: n.
        dimension: d, in which they move.
        trap: the strength of the harmonic pull of every particle towards their mean.
        distance_edges: of the bins of the histogram of pair distances, ascending.

    Attributes:
        self_distance: |x_i - x_i| as `pair_energy` is told it, where it must be 0 and smooth.
    """

    self_distance: float

    def __init__(self, num_particles: int, dimension: int, trap: float, distance_edges: Sequence[float]) -> None:
        space = Particles(num_particles, dimension)
        super().__init__(space.target_dim)
        self.space = space
        self.num_particles, self.dimension = space.num_particles, space.dimension
        self.trap = trap
        self.distance_edges = tuple(distance_edges)

    @abstractmethod
    def pair_energy(self, squared: Tensor) -> Tensor:
        """v of squared distances, elementwise."""

    @abstractmethod
    def pair_energy_and_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """v and its derivative by the squared distance, elementwise."""

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.cat([self._value_of(rows) for rows in self._blocks(x)]).view(x.shape[:-1])

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, score = map(torch.cat, zip(*map(self._value_and_score_of, self._blocks(x)), strict=True))
        return log_prob.view(x.shape[:-1]), score.view(x.shape)

    def _blocks(self, x: Tensor) -> Iterable[Tensor]:
        rows = x.reshape(-1, self.dim)
        return rows.split(CACHED // self.num_particles**2 + 1) if x.device.type == "cpu" else [rows]

    def _value_of(self, x: Tensor) -> Tensor:
        centred = self._centred(x)
        return self._log_prob(centred, self.pair_energy(self._squared_distances(centred)))

    def _value_and_score_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centred = self._centred(x)
        energy, slope = self.pair_energy_and_slope(self._squared_distances(centred))
        # sum_j slope_ij (x_i - x_j) by a matrix product: without an array of all differences, 5 times as fast
        pull = slope.sum(-1, keepdim=True) * centred - slope @ centred
        score = pull.mul_(-2).sub_(centred, alpha=self.trap)
        return self._log_prob(centred, energy), score.flatten(-2)

    def energy(self, x: Tensor) -> Tensor:
        """-log R(x), with shape (*)."""
        return -self.log_prob(x)

    def pair_distances(self, x: Tensor) -> Tensor:
        """|x_i - x_j| of all i < j, with shape (*, n (n - 1) / 2), for x with shape (*, n d)."""
        first, second = torch.triu_indices(self.num_particles, self.num_particles, 1, device=x.device)
        particles = x.unflatten(-1, (self.num_particles, self.dimension))
        return torch.linalg.vector_norm(particles[..., first, :] - particles[..., second, :], dim=-1)

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Energy, its square and its variance; the mean distance of pairs, and their share in each bin of distances."""
        return {
            "energy": self.energy,
            "energy_squared": lambda x: self.energy(x).square(),
            "heat_capacity": HeatCapacity(self.energy),
            "pair_distance": lambda x: self.pair_distances(x).mean(-1),
            "pair_distance_histogram": Shares(self.pair_distances, self.distance_edges),
        }

    def _centred(self, x: Tensor) -> Tensor:
        particles = x.unflatten(-1, (self.num_particles, self.dimension))
        return particles - particles.mean(-2, keepdim=True)

    def _squared_distances(self, particles: Tensor) -> Tensor:
        """With shape (*, n, n), coordinate by coordinate; `self_distance` squared on the diagonal."""
        differences = (one.unsqueeze(-1) - one.unsqueeze(-2) for one in particles.movedim(-1, 0).contiguous())
        squared = sum(difference * difference for difference in differences)
        squared.diagonal(dim1=-2, dim2=-1).fill_(self.self_distance**2)
        return squared

    def _log_prob(self, centred: Tensor, energy: Tensor) -> Tensor:
        # Each pair is there twice.
        return -0.5 * (energy.sum((-2, -1)) + self.trap * centred.square().sum((-2, -1)))
