"""Mixtures of bent, heavy-tailed Gaussians fitted to draws: what importance weights and SMC start from."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.curved import CurvedMap
from diffsampler.baseline.heavy_tails import draw, turn
from diffsampler.baseline.part import Part, fit_part
from diffsampler.baseline.part_groups import Parts

MIN_SHARE, NOTHING = 3e-3, 3e-4  # of what is kept, and of what is left out
WHOLE_SHARE = 0.02
BENT_FROM = 40  # effective points a dimension: fewer are no evidence of a bend
NUM_EM = 20


class Proposal:
    """sum_k w_k part_k, in float64.

    Arguments:
        parts: at least one.
        weights: positive, with shape (K).
    """

    def __init__(self, parts: list[Part], weights: Tensor) -> None:
        self.parts = parts
        self.log_weight = (weights / weights.sum()).log()
        self._degrees = self.log_weight.new_tensor([part.degrees for part in parts])
        self._together = Parts(parts)

    def to(self, device: torch.device) -> "Proposal":
        """The same on a device."""
        parts = [replace(part, map=part.map.to(device)) for part in self.parts]
        return Proposal(parts, self.log_weight.exp().to(device))

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` makes it of again."""
        return {"parts": [asdict(part) for part in self.parts], "weights": self.log_weight.exp()}

    @classmethod
    def from_dict(cls, parts: list[dict[str, Any]], weights: Tensor) -> "Proposal":
        """What `to_dict` gave."""
        return cls([Part(CurvedMap.from_dict(**part["map"]), part["degrees"]) for part in parts], weights)

    @property
    def centre(self) -> Tensor:
        """A point of its support, with shape (D)."""
        return self.parts[int(self.log_weight.argmax())].map.loc

    def units(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """As in `GaussianComponents`."""
        return GaussianComponents.fitted_to(x, weight).factor[0]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, with shape (n, D)."""
        label = torch.multinomial(self.log_weight.exp(), n, replacement=True, generator=generator)
        like = self.centre.expand(n, -1)
        return self._forward(draw(like, self._degrees[label], generator), label)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density, with shape (n), for x with shape (n, D)."""
        return self._log_joint(x).logsumexp(0)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density, with shape (n), and its gradient, for x with shape (n, D)."""
        return self._together.mixture(x, self.log_weight)

    def walk(self, x: Tensor, angle: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A move that leaves the mixture unchanged: `turn` within a part that x may come from, by `angle`, (n)."""
        label = torch.multinomial(self._log_joint(x).softmax(0).T, 1, generator=generator).squeeze(-1)
        z = self._by_part(lambda part, mine: part.map.inverse(mine)[0], x, label)
        return self._forward(turn(z, angle, self._degrees[label], generator), label)

    def label(self, x: Tensor) -> Tensor:
        """The part that each point belongs to most likely, with shape (n)."""
        return self._log_joint(x).argmax(0)

    def mixed_with(self, other: "Proposal", share: float) -> "Proposal":
        """A mixture that draws from the other one with probability `share`."""
        weights = torch.cat([(1 - share) * self.log_weight.exp(), share * other.log_weight.exp()])
        return Proposal([*self.parts, *other.parts], weights)

    def without(self, share: float) -> "Proposal":
        """The same but for parts of less weight than a share of the heaviest's."""
        kept = (self.log_weight > self.log_weight.max() + math.log(share)).nonzero().squeeze(-1).tolist()
        return Proposal([self.parts[k] for k in kept], self.log_weight[kept].exp())

    def _log_joint(self, x: Tensor) -> Tensor:
        """log of weight and density of each part, with shape (K, n)."""
        return self._together.log_prob(x) + self.log_weight.unsqueeze(-1)

    def _forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self._by_part(lambda part, mine: part.map.forward(mine)[0], z, label)

    def _by_part(self, function: Callable[[Part, Tensor], Tensor], rows: Tensor, label: Tensor) -> Tensor:
        """What the function makes of the rows of each part, put where they came from."""
        order = label.argsort()
        pieces = rows[order].split(label.bincount(minlength=len(self.parts)).tolist())
        found = [function(part, piece) for part, piece in zip(self.parts, pieces, strict=True) if len(piece)]
        return torch.cat(found)[order.argsort()]


def fit_proposal(
    x: Tensor, weight: Tensor, label: Tensor, spare: list[Part], num_refits: int = 1, floor: float = 0.0
) -> Proposal:
    """A part for all points x together, with shape (n, D), and one for each label, weighed by likelihood.

    Labels, with shape (n), are a first guess of what belongs together, after which points are assigned anew; `spare`
    has the parts of those that have too few points for one of their own. Every part gets the share `floor` at least;
    without one, parts that no point needs are left out.
    """
    usable = (weight > 0) & x.isfinite().all(-1)
    x, weight, label = x[usable], weight[usable] / weight[usable].sum(), label[usable]
    whole = fit_part(x, weight)
    if len(spare) == 1:
        return Proposal([whole], weight.new_ones(1))
    pieces, enough = spare, 2 * x.shape[1] + 10
    for _ in range(num_refits):
        sizes = [_num_effective(weight[label == k]) for k in range(len(pieces))]
        pieces = [
            _fit_piece(x[label == k], weight[label == k], piece) if size >= enough else piece
            for k, (piece, size) in enumerate(zip(pieces, sizes, strict=True))
        ]
        label = Parts(pieces).log_prob(x).argmax(0)
    parts = [whole, *pieces]
    log_prob = Parts(parts).log_prob(x)
    share = torch.full((len(parts),), 1 / len(parts), dtype=x.dtype, device=x.device)
    for _ in range(NUM_EM):
        share = (log_prob + share.log().unsqueeze(-1)).softmax(0) @ weight
        share = (share + 1e-12) / (share + 1e-12).sum()
    # The part for all stays: what lies between the others must not be impossible.
    share[0] = share[0].clamp(min=WHOLE_SHARE)
    kept = (share.clamp(min=floor) > NOTHING).nonzero().squeeze(-1).tolist()
    share = share.clamp(min=max(floor, MIN_SHARE))
    return Proposal([parts[k] for k in kept], share[kept])


def _fit_piece(x: Tensor, weight: Tensor, known: Part) -> Part:
    """A part for the points of one piece, affine where they are few; what was known before if that does as well.

    A covariance of its own must bring more than its parameters cost (AIC): in many dimensions few points make a worse
    one than a search's.
    """
    dim, num_effective = x.shape[1], _num_effective(weight)
    if num_effective >= BENT_FROM * dim:
        return fit_part(x, weight)
    gaussian = GaussianComponents.fitted_to(x, weight)
    new = fit_part(x, weight, CurvedMap.affine(gaussian.loc[0], gaussian.factor[0]))
    gained = float(weight @ (new.log_prob(x) - known.log_prob(x)) / weight.sum())
    return known if gained < 0.5 * dim * (dim + 3) / num_effective else new


def _num_effective(weight: Tensor) -> float:
    if not len(weight) or not float(weight.sum()) > 0:
        return 0.0
    return float(weight.sum().square() / weight.square().sum())
