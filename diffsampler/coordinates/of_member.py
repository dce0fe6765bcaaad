"""Coordinates of one member of a family."""

from typing import Any

from torch import Tensor

from diffsampler.baseline import Replicates
from diffsampler.coordinates.found import FoundCoordinates
from diffsampler.coordinates.of_family import FamilyCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError
from diffsampler.spaces import Space


class MemberCoordinates(FoundCoordinates):
    """Those of a family, for one context; with what its searches say of this member.

    Arguments:
        of_family: of all.
        context: with shape (C).
        counter: the member, in its own coordinates.
    """

    precise = True

    def __init__(self, of_family: FamilyCoordinates, context: Tensor, counter: CountedTarget) -> None:
        super().__init__(of_family.of_one.dim, of_family.family.dim)
        self.onto = of_family.onto
        self._of_family = (of_family,)
        self.register_buffer("unit", of_family.in_units(context.to(of_family.context_loc)), persistent=False)
        found = of_family.refer(counter)
        self.reference = None if found is None else found[0]
        points = of_family.points[:0, : self.target_dim] if found is None else found[1]
        self.register_buffer("points", points, persistent=False)

    @property
    def space(self) -> Space:
        return self._of_family[0].of_one

    @property
    def num_held_out(self) -> int:
        return len(self.points)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self._of_family[0].forward_given(z.double(), self._unit_of(z))
        # What float32 rounds onto an edge of the support would be out of it.
        return x if self.onto is None else self.onto.inside(x.to(z.dtype)), log_det

    def inverse(self, x: Tensor) -> Tensor:
        x = x if self.onto is None else self.onto.inside(x)
        return self._of_family[0].inverse_given(x.double(), self._unit_of(x))

    def search(self, *_: Any, **__: Any) -> Replicates:
        raise InputError("One member of a family is not searched by itself: search that of all.")

    def _unit_of(self, x: Tensor) -> Tensor:
        return self.unit.expand(*x.shape[:-1], -1)
