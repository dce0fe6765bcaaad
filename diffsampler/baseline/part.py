"""One bent, heavy-tailed Gaussian."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.curved import CurvedMap, fit_map
from diffsampler.baseline.heavy_tails import draw, log_law, log_student

DEGREES = (1000.0, 100.0, 30.0, 10.0, 5.0, 3.0, 2.0)


@dataclass(frozen=True)
class Part:
    """The image under a map of a law of z: Student's, of the degrees that fit, with far draws along each axis."""

    map: CurvedMap
    degrees: float

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, with shape (n, D)."""
        like = self.map.loc.expand(n, -1)
        return self.map.forward(draw(like, like.new_full((n,), self.degrees), generator))[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density, with shape (n), for x with shape (n, D)."""
        z, log_det = self.map.inverse(x)
        log_prob = log_law(z, z.new_tensor(self.degrees)) - log_det
        # Where the map overflows the part is infinitely far.
        return torch.where(log_prob.isnan(), -math.inf, log_prob)


def fit_part(x: Tensor, weight: Tensor | None = None, found: CurvedMap | None = None) -> Part:
    """The map, unless it is known, and the tails that fit weighted points x, with shape (n, D)."""
    weight = torch.ones(len(x), dtype=x.dtype, device=x.device) if weight is None else weight
    weight = weight / weight.sum()
    found = fit_map(x, weight) if found is None else found
    squares = found.inverse(x)[0].square().sum(-1)
    scores = log_student(squares, squares.new_tensor(DEGREES).unsqueeze(-1), x.shape[1]) @ weight
    return Part(found, DEGREES[int(scores.argmax())])


def gaussian_parts(components: GaussianComponents) -> list[Part]:
    """One for each component."""
    return [
        Part(CurvedMap.affine(loc, factor), DEGREES[1])
        for loc, factor in zip(components.loc, components.factor, strict=True)
    ]
