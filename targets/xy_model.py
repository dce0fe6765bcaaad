"""The XY model: plane rotators on a periodic lattice."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor

from diffsampler.errors import check_positive
from diffsampler.observables import HeatCapacity, Susceptibility, magnetisation
from diffsampler.spaces import Circle, Lattice
from diffsampler.target import Target
from targets._angles import bessel_ratios, log_bessel_sum, sample_closed
from targets._transfer import Vertex, settled_log_trace

__all__ = ["XYModel"]

MAX_WIDTH = 6  # of lattices whose transfer matrix is tried
MAX_CHANGE = 1e-4  # by the last refinement
MAX_CURRENT = 20  # through one bond


class XYModel(Target):
    """log R(theta) = beta sum_x sum_mu cos(theta(x + mu) - theta(x)).

    **Every bond between neighbours counts once**; on a lattice of size 2 in some direction there are two between them.
    The measure is flat, d theta on [-pi, pi). On a chain of L sites Z = (2 pi)^L sum_n I_n(beta)^L, and there are exact
    draws. On strips up to a width of 6 log Z is that of currents, as exp(beta cos a) = sum_n I_n(beta) exp(i n a), by
    a transfer matrix (seconds, when it is first asked for): 40.053514 for 4 x 4 at beta 1. It is None where it still
    moves by 0.0001 where this gets too large, and in higher dimensions.

    Kosterlitz & Thouless, Ordering, metastability and phase transitions in two-dimensional systems, 1973,
    https://doi.org/10.1088/0022-3719/6/7/010; its transition in two dimensions is at beta 1.12.

    Arguments:
        shape: (L_1, ..., L_d), numbers of sites of a periodic lattice.
        beta: the inverse temperature, in units of the coupling.
    """

    plot_range = (-math.pi, math.pi)

    def __init__(self, shape: Sequence[int] = (8, 8), beta: float = 1.0) -> None:
        space = Lattice(shape, Circle(1))
        super().__init__(space.dim)
        self.space = space
        self.shape = space.shape
        self.beta = float(check_positive("beta", beta))
        # no constants to hold: it tells `sample` the device
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    def log_prob(self, x: Tensor) -> Tensor:
        angles = x.unflatten(-1, self.shape)
        return self.beta * sum(one.cos() for one in self._differences(angles)).flatten(-len(self.shape)).sum(-1)

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bonds, score = 0.0, 0.0
        for axis, difference in zip(self._axes, self._differences(x.unflatten(-1, self.shape)), strict=True):
            pull = difference.sin()
            bonds = bonds + difference.cos()
            score = score + pull - pull.roll(1, axis)
        flat = -len(self.shape)
        return self.beta * bonds.flatten(flat).sum(-1), self.beta * score.flatten(flat)

    def energy(self, x: Tensor) -> Tensor:
        """-sum cos, with shape (*), without beta."""
        return self.log_prob(x) / -self.beta

    def magnetisation_squared(self, x: Tensor) -> Tensor:
        """|mean of exp(i theta)|^2 over sites, with shape (*)."""
        return x.cos().mean(-1).square() + x.sin().mean(-1).square()

    @property
    def observables(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Energy, its square and the heat capacity; the squared magnetisation m^2 and V (<m^2> - <m>^2)."""
        return {
            "energy": self.energy,
            "energy_squared": lambda x: self.energy(x).square(),
            "heat_capacity": HeatCapacity(self.energy, self.beta),
            "magnetisation_squared": self.magnetisation_squared,
            "susceptibility": Susceptibility(partial(magnetisation, space=self.space), self.dim),
        }

    @property
    def exact_observables(self) -> dict[str, float]:
        """On a chain, the mean energy and the mean squared magnetisation; else nothing."""
        if len(self.shape) > 1:
            return {}
        # <cos k (theta_0 - theta_r)> of the transfer matrix, whose eigenvalues are I_n
        length = self.dim
        ratios = bessel_ratios(self.beta)
        ratios = torch.cat([ratios[1:].flip(0), ratios, torch.zeros(1, dtype=ratios.dtype)])
        z = (ratios**length).sum()
        aligned = [float((ratios[:-1] ** (length - r) * ratios[1:] ** r).sum() / z) for r in range(1, length)]
        neighbours = aligned[0] if length > 1 else 1.0
        return {"energy": -length * neighbours, "magnetisation_squared": (1 + sum(aligned)) / length}

    @cached_property
    def log_z(self) -> float | None:
        """In closed form on a chain, by a transfer matrix on strips, else None."""
        if len(self.shape) == 1:
            return log_bessel_sum(self.beta, self.dim) + self.dim * math.log(2 * math.pi)
        if len(self.shape) > 2 or min(self.shape) > MAX_WIDTH:
            return None
        ratios = bessel_ratios(self.beta, tolerance=1e-12)
        if len(ratios) > MAX_CURRENT + 1:
            return None
        log_z, change = settled_log_trace(self._vertex(ratios.numpy()), self.shape)
        return log_z if change < MAX_CHANGE else None

    def _vertex(self, ratios: np.ndarray) -> Vertex:
        """Currents n of bonds, which flow through a site without loss: that is what is left of the integral over it."""
        currents = np.array([sign * n for n in range(len(ratios)) for sign in ((1, -1) if n else (1,))])
        root = np.sqrt(ratios[np.abs(currents)])
        n = currents
        loss = n[:, None, None, None] - n[:, None, None] + n[:, None] - n
        weights = root[:, None, None, None] * root[:, None, None] * root[:, None] * root
        bonds = 2 * (math.log(float(ive(0, self.beta))) + self.beta)
        return Vertex(
            np.where(loss == 0, weights, 0.0), root**2, root**2, currents, 2**40, bonds + math.log(2 * math.pi)
        )

    @property
    def has_exact_samples(self) -> bool:
        return len(self.shape) == 1

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """On a chain: its bonds are independent von Mises angles given that they close up."""
        if not self.has_exact_samples:
            return super().sample(n, generator)
        device = self._anchor.device
        bonds = sample_closed(n, self.dim, self.beta, generator, device)
        first = 2 * math.pi * torch.rand(n, 1, generator=generator, dtype=torch.float64, device=device)
        return self.space.wrap(first + bonds.cumsum(-1)).to(torch.get_default_dtype())

    @property
    def _axes(self) -> range:
        return range(-len(self.shape), 0)

    def _differences(self, angles: Tensor) -> list[Tensor]:
        """theta(x + mu) - theta(x) for every direction, with the shape of the lattice."""
        return [angles.roll(-1, axis) - angles for axis in self._axes]
