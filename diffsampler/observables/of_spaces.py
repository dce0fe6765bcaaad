"""What every target of a kind of space has: energies, distances of pairs, magnetisations."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffsampler.density import CheckedTarget
from diffsampler.errors import check_instance
from diffsampler.spaces import Lattice, Particles
from diffsampler.target import Target


def energy(target: Target) -> Callable[[Tensor], Tensor]:
    """x -> -log R(x), float64, with shape (n): the energy in units of the temperature, and what -log R adds to it.

    Evaluations are not counted: what is reported of draws is no part of what a run costs.
    """
    density = CheckedTarget(target)
    return lambda x: -density.log_prob(x)


def pair_distances(x: Tensor, space: Particles) -> Tensor:
    """The distances of all pairs of particles, with shape (n, N (N - 1) / 2), for x with shape (n, N d)."""
    check_instance("space", space, Particles, "Particles(13, 3)")
    particles = x.unflatten(-1, (space.num_particles, space.dimension))
    first, second = torch.triu_indices(space.num_particles, space.num_particles, 1, device=x.device)
    return (particles[..., first, :] - particles[..., second, :]).norm(dim=-1)


def magnetisation(x: Tensor, space: Lattice) -> Tensor:
    """The mean field over sites, with shape (n) for one field, (n, C) for C, for x with shape (n, D).

    Of angles it is that of their directions: cosines, then sines, with shape (n, 2 C).
    """
    check_instance("space", space, Lattice, "Lattice((8, 8))")
    mean = space.fields(x).flatten(2)
    mean = torch.cat([mean.cos(), mean.sin()], 1).mean(-1) if space.is_periodic else mean.mean(-1)
    return mean.squeeze(-1) if mean.shape[-1] == 1 else mean


def absolute_magnetisation(x: Tensor, space: Lattice) -> Tensor:
    """Its absolute value, or norm, with shape (n)."""
    m = magnetisation(x, space)
    return m.abs() if m.ndim == 1 else m.norm(dim=-1)


def distances_of(space: Particles) -> Callable[[Tensor], Tensor]:
    """`pair_distances` as a function of x."""
    return partial(pair_distances, space=space)
