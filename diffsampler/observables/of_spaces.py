"""What every target of a kind of space has: energies, distances of pairs, magnetisations."""

import math
from collections.abc import Callable
from functools import partial, singledispatch

import torch
from torch import Tensor

from diffsampler.density import CheckedTarget
from diffsampler.errors import check_instance
from diffsampler.observables.histogram import Histogram
from diffsampler.spaces import Lattice, Links, Particles, Space
from diffsampler.spaces.kernels import wrap
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


def plaquette_angles(x: Tensor, space: Links) -> Tensor:
    """The angles of all plaquettes, in [-pi, pi), with shape (n, P), for x with shape (n, D)."""
    return wrap(space.plaquettes(x)).flatten(1)


def angles_to_neighbours(x: Tensor, space: Lattice) -> Tensor:
    """How far angles turn from each site to its neighbours ahead, in [-pi, pi), with shape (n, k D)."""
    fields = space.fields(x)
    axes = range(-len(space.shape), 0)
    return wrap(torch.stack([fields.roll(-1, axis) - fields for axis in axes], 1)).flatten(1)


@singledispatch
def histograms_of(space: Space | None) -> dict[str, Histogram]:
    """What tells more of draws than single coordinates do, by name; nothing where these tell all."""
    return {}


@histograms_of.register
def _(space: Particles) -> dict[str, Histogram]:
    return {"pair_distances": Histogram(partial(pair_distances, space=space), low=0.0, label="distance of a pair")}


@histograms_of.register
def _(space: Lattice) -> dict[str, Histogram]:
    if not space.is_periodic:
        return {"fields": Histogram(lambda x: x, label="field at a site")}
    f = partial(angles_to_neighbours, space=space)
    return {"neighbours": Histogram(f, -math.pi, math.pi, label="angle between neighbours (rad)")}


@histograms_of.register
def _(space: Links) -> dict[str, Histogram]:
    f = partial(plaquette_angles, space=space)
    return {"plaquettes": Histogram(f, -math.pi, math.pi, label="angle of a plaquette (rad)")}
