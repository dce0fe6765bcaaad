"""Whether a density has the symmetries of the space that its target declares."""

import torch
from torch import Tensor

from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError
from diffsampler.repeatable import differ
from diffsampler.spaces import Space

NUM_LOOKED_AT = 16
# Sums in another order, in float32 too, differ by less, relative to a value; and in nats, what moves no log Z.
ALIKE, NEGLIGIBLE = 1e-5, 1e-3
WAYS_OUT = {
    "all particles move alike": "mean_free is for energies that do not know where the centre is: leave it out, or take "
    "the mean of the particles off first",
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
        if differ(here[known], there[known], NEGLIGIBLE, tolerance):
            k = int((here - there).abs()[known].argmax())
            raise InputError(
                f"{counter.name} declares {space!r}, but its log_prob changes when {what}: from "
                f"{float(here[known][k]):.6g} to {float(there[known][k]):.6g}. {WAYS_OUT.get(what, OTHERWISE)}."
            )
