"""A real scalar field on a periodic lattice, in the form that all conventions come down to.

Shared by `Phi4` and `Phi4Hopping`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.observables import Susceptibility
from diffsampler.spaces import Lattice
from diffsampler.target import Target
from targets._transfer import Vertex, settled_log_trace

__all__ = ["ScalarField"]

NUM_NODES = 400
NUM_BONDS = 14
MAX_CHANGE = 1e-3  # by the last refinement
MAX_WIDTH = 8  # of lattices whose transfer matrix is tried


class ScalarField(Target):
    """log R(phi) = sum_x [hopping sum_mu 2 phi(x) phi(x + mu) - quadratic phi(x)^2 - quartic phi(x)^4].

    Every bond between neighbours counts once; on a lattice of size 2 in some direction there are two between them.

    Arguments:
        shape: (L_1, ..., L_d).
        hopping, quadratic, quartic: as above; the quartic one is not negative.
    """

    def __init__(self, shape: Sequence[int], hopping: float, quadratic: float, quartic: float) -> None:
        space = Lattice(shape)
        super().__init__(space.dim)
        self.space = space
        self.shape = space.shape
        if quartic == 0 and quadratic <= 2 * len(self.shape) * hopping:
            raise InputError(self.without_coupling)
        self.hopping, self.quadratic, self.quartic = hopping, quadratic, quartic

    @property
    @abstractmethod
    def without_coupling(self) -> str:
        """What must hold where there is no quartic term, in the words of a convention."""

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_prob(x, self._ahead(x.unflatten(-1, self.shape)).flatten(-len(self.shape)))

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        field = x.unflatten(-1, self.shape)
        ahead = self._ahead(field)
        around = ahead + self._ahead(field, -1)
        score = torch.addcmul(2 * self.hopping * around.flatten(-len(self.shape)), self._slope(x), x)
        return self._log_prob(x, ahead.flatten(-len(self.shape))), score

    def action(self, x: Tensor) -> Tensor:
        """S = -log R(x), with shape (*)."""
        return -self.log_prob(x)

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Of the magnetisation m, the mean over sites: m, |m|, m^2 and whether m > 0; the action and its square.

        `susceptibility` is V (<m^2> - <|m|>^2); papers also say V <m^2>, where m is 0 on average.
        """
        return {
            "magnetisation": lambda x: x.mean(-1),
            "absolute_magnetisation": lambda x: x.mean(-1).abs(),
            "magnetisation_squared": lambda x: x.mean(-1).square(),
            "positive_magnetisation": lambda x: (x.mean(-1) > 0).to(x.dtype),
            "susceptibility": Susceptibility(lambda x: x.mean(-1), self.dim),
            "action": self.action,
            "action_squared": lambda x: self.action(x).square(),
        }

    @property
    def exact_observables(self) -> dict[str, float]:
        """Those means of `observables` that symmetry tells."""
        return {"magnetisation": 0.0, "positive_magnetisation": 0.5}

    @cached_property
    def log_z(self) -> float | None:
        """In closed form without coupling, else by a transfer matrix where that settles, else None."""
        if self.quartic == 0:
            return self._gaussian_log_z()
        length, *rest = sorted((1, *self.shape)) if len(self.shape) == 1 else sorted(self.shape)
        if len(rest) > 1 or length > MAX_WIDTH:
            return None
        log_z, change = settled_log_trace(self._vertex(), (length, *rest))
        return log_z if change < MAX_CHANGE else None

    def _gaussian_log_z(self) -> float:
        waves = np.meshgrid(*(2 * np.pi * np.arange(size) / size for size in self.shape), indexing="ij")
        stiffness = self.quadratic - 2 * self.hopping * sum(np.cos(wave) for wave in waves)
        return 0.5 * float(np.log(np.pi / stiffness).sum())

    def _vertex(self) -> Vertex:
        """Bonds in the functions that are orthonormal beside the other bonds of a site, as far as these are alone.

        A message h, the factor that a bond brings to the field of a site, is the fixed point of belief propagation;
        exp(2 hopping p q) / (h(p) h(q)) then differs little from a constant. Even and odd functions have charges 0, 1.
        """
        neighbours = 2 * len(self.shape)
        field = self._nodes()
        log_site = -self.quadratic * field**2 - self.quartic * field**4 + math.log(field[1] - field[0])
        log_bond = 2 * self.hopping * np.outer(field, field)
        message = np.zeros(NUM_NODES)
        for _ in range(2000):
            longer = _log_sum_exp(log_bond + log_site + (neighbours - 1) * message)
            longer = (longer + longer[::-1]) / 2 - longer[NUM_NODES // 2]
            done, message = np.abs(longer - message).max() < 1e-12, longer
            if done:
                break
        log_density = log_site + neighbours * message
        log_scale = log_density.max()
        root = np.exp((log_density - log_scale) / 2)
        inside = root > 1e-13
        log_bond = log_bond - message[:, None] - message + (log_density[:, None] + log_density) / 2
        log_scale_of_bonds = log_bond.max()
        strengths, functions, charges = _even_and_odd(np.exp(log_bond - log_scale_of_bonds))
        legs = (functions * np.sqrt(strengths))[inside]
        pairs = legs[:, :, None] * legs[:, None, :]
        along = pairs / root[inside, None, None] ** 2 if neighbours == 4 else np.ones((len(legs), 1, 1))
        tensor = np.einsum("xmn,xab->mnab", pairs, along, optimize=True)
        log_scale += neighbours // 2 * (log_scale_of_bonds - log_scale)
        return Vertex(tensor, strengths, strengths[: tensor.shape[-1]], charges, 2, float(log_scale))

    def _nodes(self) -> np.ndarray:
        """Of the trapezoidal rule, until the density of a constant field has fallen by exp(-60) from its highest."""
        mass = self.quadratic - 2 * len(self.shape) * self.hopping
        lowest = -(min(mass, 0.0) ** 2) / (4 * self.quartic)
        square = (-mass + math.sqrt(mass**2 + 4 * self.quartic * (60 + lowest))) / (2 * self.quartic)
        return math.sqrt(square) * np.linspace(-1, 1, NUM_NODES)

    def _ahead(self, field: Tensor, direction: int = 1) -> Tensor:
        """The sum of the neighbours ahead, or behind."""
        return sum(field.roll(-direction, axis) for axis in range(-len(self.shape), 0))

    def _slope(self, x: Tensor) -> Tensor:
        return -2 * self.quadratic - 4 * self.quartic * x * x

    def _log_prob(self, x: Tensor, ahead: Tensor) -> Tensor:
        square = x * x
        return (2 * self.hopping * x * ahead - (self.quadratic + self.quartic * square) * square).sum(-1)


def _log_sum_exp(rows: np.ndarray) -> np.ndarray:
    highest = rows.max(1)
    return highest + np.log(np.exp(rows - highest[:, None]).sum(1))


def _even_and_odd(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues (B), eigenvectors (n, B) and parities (B) of a kernel that does not change under reflection."""
    half = len(kernel) // 2
    right, across = kernel[half:, half:], kernel[half:, :half][:, ::-1]
    values, vectors, parities = [], [], []
    for parity, sign in enumerate((1, -1)):
        found, one_side = np.linalg.eigh(right + sign * across)
        values.append(found)
        vectors.append(np.concatenate([sign * one_side[::-1], one_side]) / math.sqrt(2))
        parities.append(np.full(half, parity))
    values, vectors, parities = np.concatenate(values), np.concatenate(vectors, 1), np.concatenate(parities)
    first = values.argsort()[::-1][:NUM_BONDS]
    first = first[values[first] > 1e-15 * values.max()]
    return values[first], vectors[:, first], parities[first]
