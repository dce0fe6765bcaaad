"""Coordinates of a target that declares its space: centred and of unit scale, with the symmetry of the space."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline import Replicates, reference
from diffsampler.baseline.reweighted import KnownDraws
from diffsampler.baseline.starts import as_matrix, moments_on
from diffsampler.coordinates.found import FoundCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.errors import check_count
from diffsampler.frames import SpaceFrame, frame_of
from diffsampler.log_z.resampling import systematic
from diffsampler.spaces import Space
from diffsampler.streams import new_generator
from diffsampler.target import Target


class SpaceCoordinates(FoundCoordinates):
    """x = T(loc + root z), where T maps states of the target's space to x, and root has the symmetry of the space.

    T is that of the coordinates which the target declares, if it does.

    Particles share one scale, sites of a lattice one mean and a covariance that depends on their distance alone; angles
    stay what they are. Before `search` loc is 0 and root 1.

    Arguments:
        target: declares the space.
        num_points: how many draws of the search are kept, at least 2.

    Attributes:
        known: draws of the target before, from which the search of another one can begin; None without.
    """

    precise = True

    def __init__(self, target: Target, num_points: int = 10_000) -> None:
        frame = frame_of(target)
        space = frame.space
        super().__init__(space.dim, target.dim)
        self.frame, self._space = frame, space
        self.known: KnownDraws | None = None
        self._log_prob: Tensor | None = None  # at the points
        self.register_buffer(
            "points", torch.zeros(check_count("num_points", num_points, minimum=2), target.dim).double()
        )
        self.register_buffer("loc", torch.zeros(space.dim, dtype=torch.float64))
        self.register_buffer("root", torch.eye(space.dim, dtype=torch.float64))
        self.register_buffer("log_det", torch.zeros((), dtype=torch.float64))

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "log_prob": self._log_prob}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self._log_prob = state.get("log_prob")

    def move_to(self, target: Target) -> None:
        if self.reference is not None and self._log_prob is not None:
            log_prob = self._log_prob.to(self.points.device)
            self.known = KnownDraws(self.points.clone(), log_prob, self.reference)
        super().move_to(target)
        self.frame = frame_of(target)

    @property
    def space(self) -> Space:
        return self._space

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.frame(self._state(z))
        return x.to(z.dtype), self.log_det + log_det

    def score_of(self, z: Tensor, score: Tensor) -> Tensor:
        return (self.frame.score_of(self._state(z), score.double()) @ self.root).to(z.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        state = self.frame.inverse(x.double())
        return torch.linalg.solve(self.root, (state - self.loc).unsqueeze(-1)).squeeze(-1).to(x.dtype)

    def image(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        # Coordinates that a target declares leave out what changes nothing.
        return self._space.image(x, generator) if isinstance(self.frame, SpaceFrame) else x

    def _state(self, z: Tensor) -> Tensor:
        return self.loc + z.double() @ self.root

    @torch.no_grad()
    def search(
        self,
        counter: CountedTarget,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        max_evaluations: int | None = None,
    ) -> Replicates:
        generator = new_generator("search", seed, device=self.loc.device)
        known = None if self.is_found else self.known
        found = reference(counter, generator=generator, progress=progress, max_evaluations=max_evaluations, known=known)
        rows = systematic(found.log_weight, len(self.points), generator)
        if not found.is_warm:  # else they are in order
            # At random, but for copies of one point, which stay together.
            shuffled = torch.randperm(len(found.x), generator=generator, device=rows.device)
            rows = rows[shuffled[rows].argsort()]
        x, self._log_prob = found.x[rows], found.log_prob[rows]
        if not self._space.is_periodic:
            loc, root = moments_on(self._space, self.frame.inverse(found.x))
            self.loc.copy_(loc)
            self.root.copy_(as_matrix(root, self.dim))
            self.log_det.copy_(torch.linalg.slogdet(self.root).logabsdet)
        self.known, self.is_warm = None, found.is_warm
        self.keep(counter, x, found.estimate)
        return found
