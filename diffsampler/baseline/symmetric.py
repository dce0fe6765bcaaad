"""Whether a density has the symmetries of the space that its target declares."""

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError
from diffsampler.repeatable import differ
from diffsampler.spaces import Particles, Space

NUM_LOOKED_AT = 16
# Sums in another order, in float32 too, differ by less, relative to a value; and in nats, what moves no log Z.
ALIKE, NEGLIGIBLE = 1e-5, 1e-3
MOVE = "all particles move alike"
MANY_LOST = 0.25  # of the points: an energy that fails now and then is no other energy
WAYS_OUT = {
    MOVE: "mean_free is the number of particles, for energies that do not know where their centre is: leave it out, or "
    "take the mean of the particles off first",
    "particles are exchanged": "give space=Particles(n, d, identical=False) in the place of mean_free",
    "all particles are rotated or reflected": "give space=Particles(n, d, isotropic=False) in the place of mean_free",
    "angles go once around, by 2 pi": "periodic is for coordinates of period 2 pi: give those alone, "
    "in radians; in a box of length L write log_prob for x * L / (2 pi)",
}
OTHERWISE = "declare a space without this symmetry, or leave space out: no network knows it then"


def check_symmetric(counter: CountedTarget, space: Space, x: Tensor, generator: torch.Generator) -> None:
    """Refuse a target that changes under what its space says it does not.

    Arguments:
        counter: the target, in its own coordinates.
        space: that it declares.
        x: points with shape (n, D), of finite density, as near to where the mass is as is known.
        generator: the source of all noise.

    Raises:
        InputError: which names the symmetry, and what to do.
    """
    x = x[:NUM_LOOKED_AT].double()
    here = counter.log_prob(x)
    known = here.isfinite()
    # Of each value: what is lost in a singular core is large and says nothing of the others.
    tolerance = max(ALIKE, 1e3 * counter.rounding)
    for what, symmetry in space.symmetries.items():
        there = counter.log_prob(symmetry(x, generator))
        lost = known & there.isnan()
        if lost.sum() > MANY_LOST * known.sum():
            raise InputError(
                f"{counter.name} declares {space!r}, but its log_prob is NaN at {int(lost.sum())} of "
                f"{int(known.sum())} points when {what}, at which it was a number before. Return -inf where the "
                "density is zero, which must be so of all images of a point."
            )
        compared = known & ~lost
        if differ(here[compared], there[compared], NEGLIGIBLE, tolerance):
            k = int((here - there).abs()[compared].argmax())
            way_out = _other_particles(counter, space, x, here, tolerance, generator)
            raise InputError(
                f"{counter.name} declares {space!r}, but its log_prob changes when {what}: from "
                f"{float(here[compared][k]):.6g} to {float(there[compared][k]):.6g}. "
                f"{way_out or WAYS_OUT.get(what, OTHERWISE)}."
            )


def _other_particles(
    counter: CountedTarget, space: Space, x: Tensor, here: Tensor, tolerance: float, generator: torch.Generator
) -> str:
    """What to do, if x is other particles than its space says, which have all symmetries; else nothing."""
    if not isinstance(space, Particles):
        return ""
    known = here.isfinite()

    def fits(n: int, by_axis: bool) -> bool:
        shape = (counter.dim // n, n)
        for symmetry in Particles(n, counter.dim // n).symmetries.values():
            if by_axis:
                image = symmetry(x.unflatten(-1, shape).mT.flatten(-2), generator)
                image = image.unflatten(-1, shape[::-1]).mT.flatten(-2)
            else:
                image = symmetry(x, generator)
            if differ(here[known], counter.log_prob(image)[known], NEGLIGIBLE, tolerance):
                return False
        return True

    numbers = [n for n in range(2, counter.dim + 1) if counter.dim % n == 0]
    fitting = [
        f"{n} in the dimension {counter.dim // n}" for n in numbers if n != space.num_particles and fits(n, False)
    ]
    if fitting:
        said = " or ".join(fitting)
        return f"mean_free, or n of Particles(n, d), is the number of particles, of which {said} would fit"
    if any(fits(n, True) for n in numbers if n < counter.dim):
        return "x must hold one particle after the other, not all first coordinates before all second ones"
    return ""
