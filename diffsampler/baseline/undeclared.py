"""What a target may have forgotten to declare, and how it would: particles that all move alike, angles."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffsampler.spaces import Circle, Euclidean, Lattice, Particles
from diffsampler.spaces.declared import angles_among
from diffsampler.target import FunctionTarget, Target, space_of

# In units that nothing is known of, at all distances: in a core values are large, far apart they are all the same.
SCALES = torch.logspace(-1, 3, 9, dtype=torch.float64).repeat(2).unsqueeze(-1)
ALIKE, NEGLIGIBLE = 1e-5, 1e-6  # relative to a value, and in nats
TRAP = "add a trap or a wall about their mean (docs/particles.md says how)"


class Free:
    """Particles that may all move alike, though nobody has said that x is particles.

    Arguments:
        target: what they are those of.
        num_particles, dimension: n and d.
        by_axis: whether x holds all first coordinates, then all second ones.
    """

    def __init__(self, target: Target, num_particles: int, dimension: int, by_axis: bool) -> None:
        self.name, self.is_function = type(target).__name__, isinstance(target, FunctionTarget)
        self.num_particles, self.dimension, self.by_axis = num_particles, dimension, by_axis

    @property
    def declared(self) -> str:
        """How to say so, for a sentence that goes on."""
        n, d = self.num_particles, self.dimension
        order = "let x hold one particle after the other, " if self.by_axis else ""
        said = (
            f"say mean_free={n} in {self.name}" if self.is_function else f"give {self.name} space = Particles({n}, {d})"
        )
        return order + said

    @property
    def way_out(self) -> str:
        """Where only the centre goes anywhere."""
        return f"if x is {self.num_particles} particles whose centre does not matter, {self.declared}"

    @property
    def way_out_of_flying_apart(self) -> str:
        """Where they do too."""
        return f"if x is {self.num_particles} particles, they fly apart: {self.declared}, and {TRAP}"


def free_particles(
    target: Target, log_prob: Callable[[Tensor], Tensor], noise: Callable[..., Tensor], rounding: float
) -> Free | None:
    """The fewest particles that may all move alike without a change of log R, where x is not said to be any.

    Arguments:
        target: the user's, with D coordinates.
        log_prob: its log R at points with shape (n, D).
        noise: makes standard normal numbers of a shape.
        rounding: the relative error of values.
    """
    if type(space_of(target)) is not Euclidean or target.coordinates is not None:
        return None
    dim, scales = target.dim, SCALES.to(noise(1).device)
    x = scales * noise(len(scales), dim)
    here = log_prob(x)
    known, tolerance = here.isfinite(), NEGLIGIBLE + max(ALIKE, 1e3 * rounding) * here.abs()
    if not known.any() or (here - here[known].median()).abs()[known].le(tolerance[known]).all():
        return None

    for n in (n for n in range(2, dim + 1) if dim % n == 0):
        step = scales * noise(len(scales), dim // n)
        for by_axis in (False, True) if n < dim else (False,):
            there = log_prob(x + (step.repeat_interleave(n, -1) if by_axis else step.repeat(1, n)))
            if (there - here).abs()[known].le(tolerance[known]).all():
                return Free(target, n, dim // n, by_axis)
    return None


def are_particles(target: Target) -> bool:
    """Whether it says that x is particles, whose centre is nowhere."""
    return isinstance(space_of(target), Particles)


def angles_declared(target: Target, which: Sequence[int], every: bool) -> str:
    """How to say which coordinates, or that all of them, are angles, for a sentence that goes on."""
    space = space_of(target)
    if type(space) is Lattice and every:
        return f"say so by space=Lattice({space.shape}, Circle({space.site.dim}))"
    if isinstance(target, FunctionTarget):
        return f"say so by {type(target).__name__}(fn, dim, periodic=True), or which they are"
    if type(space) is Euclidean and target.coordinates is None:
        one_period = (
            ""
            if target.coordinate_names is None
            else "let its parameter live in one period, as in bounded(-math.pi, math.pi), or "
        )
        found = Circle(target.dim) if every else angles_among(which, target.dim)
        return f"{one_period}give {type(target).__name__} space = {found!r}"
    return f"say so in the space of {type(target).__name__}"
