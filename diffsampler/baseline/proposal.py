"""Mixtures of bent, heavy-tailed Gaussians fitted to draws: what importance weights and SMC start from."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline.components import GaussianComponents
from diffsampler.baseline.curved import CurvedMap, fit_map
from diffsampler.spaces.kernels import HALF_LOG_TWO_PI, noise_like, uniform_like

DEGREES = (1000.0, 100.0, 30.0, 10.0, 5.0, 3.0, 2.0)
FAR_SHARE, FAR_SCALE, FAR_DEGREES = 0.15, 2.0, 3.0
MIN_SHARE, NOTHING = 3e-3, 3e-4  # of what is kept, and of what is left out
WHOLE_SHARE = 0.02
BENT_FROM = 40  # effective points a dimension: fewer are no evidence of a bend
NUM_EM = 20


@dataclass(frozen=True)
class Part:
    """The image under a map of a law of z: Student's, of the degrees that fit.

    A sixth of the draws is normal but for one coordinate, any, that goes far: along each of them importance weights
    show what lies beyond the points that the part was fitted to.
    """

    map: CurvedMap
    degrees: float

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, with shape (n, D)."""
        z = noise_like(self.map.loc.expand(n, -1), generator)
        far = uniform_like(z[:, 0], generator) < FAR_SHARE
        axis = torch.randint(z.shape[1], (n,), generator=generator, device=z.device)
        shapes = (torch.full_like(z[:, 0], 0.5 * degrees) for degrees in (self.degrees, FAR_DEGREES))
        scale = self._scales(far, axis, *(_gamma(shape, generator) for shape in shapes))
        return self.map.forward(scale * z)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density, with shape (n), for x with shape (n, D)."""
        z, log_det = self.map.inverse(x)
        near, far = self._log_laws(z)
        log_prob = torch.logaddexp(near, far.logsumexp(-1)) - log_det
        # Where the map overflows the part is infinitely far.
        return torch.where(log_prob.isnan(), -math.inf, log_prob)

    def walk(self, x: Tensor, angle: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A move that leaves the part unchanged: a rotation by `angle`, with shape (n), towards an independent draw.

        Student's law is normal given a factor on its precision: that is drawn first, then z moves as in pCN.

        References:
            MCMC methods for functions, Cotter, Roberts, Stuart & White, 2013: the preconditioned Crank-Nicolson move.
        """
        z, _ = self.map.inverse(x)
        dim = z.shape[1]
        near, far = self._log_laws(z)
        chance = torch.cat([near.unsqueeze(-1), far], -1).softmax(-1)
        law = torch.multinomial(chance, 1, generator=generator).squeeze(-1)
        axis = (law - 1).clamp(min=0)
        along = z.gather(1, axis.unsqueeze(-1)).squeeze(-1) / FAR_SCALE
        near_shape, far_shape = torch.full_like(along, 0.5 * (self.degrees + dim)), 0.5 * (FAR_DEGREES + 1)
        near_precision = _gamma(near_shape, generator) * 2 * near_shape / (self.degrees + z.square().sum(-1))
        far_precision = _gamma(torch.full_like(along, far_shape), generator)
        far_precision = far_precision * 2 * far_shape / (FAR_DEGREES + along.square())
        noise = noise_like(z, generator) * self._scales(law > 0, axis, near_precision, far_precision)
        return self.map.forward(angle.cos().unsqueeze(-1) * z + angle.sin().unsqueeze(-1) * noise)[0]

    def _scales(self, far: Tensor, axis: Tensor, near_precision: Tensor, far_precision: Tensor) -> Tensor:
        """Standard deviations of z, with shape (n, D), given its law and the factors on its precision."""
        wide = torch.nn.functional.one_hot(axis, len(self.map.loc)).bool()
        stretched = torch.where(wide, (FAR_SCALE / far_precision.sqrt()).unsqueeze(-1), 1.0)
        return torch.where(far.unsqueeze(-1), stretched, near_precision.rsqrt().unsqueeze(-1))

    def _log_laws(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log of share and density of the near law, with shape (n), and of the far one along each axis, (n, D)."""
        squares, dim = z.square(), z.shape[1]
        near = math.log(1 - FAR_SHARE) + _log_student(squares.sum(-1), self.degrees, dim)
        along = _log_student(squares / FAR_SCALE**2, FAR_DEGREES, 1) - math.log(FAR_SCALE)
        others = -0.5 * (squares.sum(-1, keepdim=True) - squares) - (dim - 1) * HALF_LOG_TWO_PI
        return near, math.log(FAR_SHARE / dim) + along + others


class Proposal:
    """sum_k w_k part_k, in float64.

    Arguments:
        parts: at least one.
        weights: positive, with shape (K).
    """

    def __init__(self, parts: list[Part], weights: Tensor) -> None:
        self.parts = parts
        self.log_weight = (weights / weights.sum()).log()

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
        x = self.centre.new_empty(n, len(self.centre))
        for k, part in enumerate(self.parts):
            mine = (label == k).nonzero().squeeze(-1)
            if len(mine):
                x[mine] = part.sample(len(mine), generator)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density, with shape (n), for x with shape (n, D)."""
        return self._log_joint(x).logsumexp(0)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density, with shape (n), and its gradient, for x with shape (n, D)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_prob = self.log_prob(x)
            (score,) = torch.autograd.grad(log_prob.sum(), x)
        return log_prob.detach(), score

    def walk(self, x: Tensor, angle: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A move that leaves the mixture unchanged: within a part that x may come from, as `Part.walk`."""
        label = torch.multinomial(self._log_joint(x).softmax(0).T, 1, generator=generator).squeeze(-1)
        moved = x.clone()
        for k, part in enumerate(self.parts):
            mine = (label == k).nonzero().squeeze(-1)
            if len(mine):
                moved[mine] = part.walk(x[mine], angle[mine], generator)
        return moved

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
        return torch.stack([part.log_prob(x) for part in self.parts]) + self.log_weight.unsqueeze(-1)


def fit_part(x: Tensor, weight: Tensor | None = None, found: CurvedMap | None = None) -> Part:
    """The map, unless it is known, and the tails that fit weighted points x, with shape (n, D)."""
    weight = torch.ones(len(x), dtype=x.dtype, device=x.device) if weight is None else weight
    weight = weight / weight.sum()
    found = fit_map(x, weight) if found is None else found
    squares = found.inverse(x)[0].square().sum(-1)
    scores = [float(weight @ _log_student(squares, degrees, x.shape[1])) for degrees in DEGREES]
    return Part(found, DEGREES[scores.index(max(scores))])


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
        label = torch.stack([piece.log_prob(x) for piece in pieces]).argmax(0)
    parts = [whole, *pieces]
    log_prob = torch.stack([part.log_prob(x) for part in parts])
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


def gaussian_parts(components: GaussianComponents) -> list[Part]:
    """One for each component."""
    return [
        Part(CurvedMap.affine(loc, factor), DEGREES[1])
        for loc, factor in zip(components.loc, components.factor, strict=True)
    ]


def _num_effective(weight: Tensor) -> float:
    if not len(weight) or not float(weight.sum()) > 0:
        return 0.0
    return float(weight.sum().square() / weight.square().sum())


def _log_student(squares: Tensor, degrees: float, dim: int) -> Tensor:
    """Of z with |z|^2 = squares, of unit covariance factor."""
    constant = math.lgamma(0.5 * (degrees + dim)) - math.lgamma(0.5 * degrees) - 0.5 * dim * math.log(degrees * math.pi)
    return constant - 0.5 * (degrees + dim) * torch.log1p(squares / degrees)


def _gamma(shape: Tensor, generator: torch.Generator | None) -> Tensor:
    """Gamma draws of mean 1, with the shape of `shape`."""
    return torch._standard_gamma(shape, generator=generator) / shape
