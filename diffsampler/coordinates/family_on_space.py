"""Coordinates of a family on a space of its own: angles, particles, links of a lattice."""

import torch
from torch import Tensor

from diffsampler.baseline import Replicates
from diffsampler.baseline.reweighted import KnownDraws
from diffsampler.baseline.starts import as_matrix, moments_on
from diffsampler.coordinates.of_family import FamilyCoordinates
from diffsampler.families import Joint
from diffsampler.log_z.resampling import systematic

CONTEXTS_OF_A_WIDTH = 3  # at least, for each number that widths depend on


class FamilyOnSpace(FamilyCoordinates):
    """As `FamilyCoordinates`, with the symmetry of a space in place of bends.

    States are loc + root (width z), where root has the symmetry of the space, and the width of reals, one number, is
    log-linear in the context; angles stay what they are. Members are searched by tempered SMC, each but the first from
    draws of the nearest one found, where these are near enough.

    Arguments:
        joint: the family, as a function of pairs.
        num_points: how many draws are kept, at least 2.
    """

    def __init__(self, joint: Joint, num_points: int = 20_000) -> None:
        super().__init__(joint, num_points)
        dim = self.of_one.dim
        self.register_buffer("is_real", ~self.of_one.angles, persistent=False)
        self.register_buffer("loc", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("root", torch.eye(dim, dtype=torch.float64))
        self.register_buffer("log_det", torch.zeros((), dtype=torch.float64))
        self.register_buffer("widening", torch.zeros(joint.family.context_dim, dtype=torch.float64))

    def forward_given(self, z: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        log_width = self._log_width(unit)
        state = self.loc + (z * log_width.exp()) @ self.root
        return self.of_one.to_target(state), self.log_det + log_width.sum(-1)

    def inverse_given(self, x: Tensor, unit: Tensor) -> Tensor:
        state = self.of_one.wrap(self.of_one.from_target(x))
        z = torch.linalg.solve(self.root, (state - self.loc).unsqueeze(-1)).squeeze(-1)
        return z * (-self._log_width(unit)).exp()

    def image(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        point, context = self._split(x, self.family.dim)
        return torch.cat([self.of_one.image(point, generator), context], -1)

    def fit(self, x: Tensor, unit: Tensor) -> None:
        if self.of_one.is_periodic:
            return
        state = self.of_one.wrap(self.of_one.from_target(x))
        loc, root = moments_on(self.of_one, state)
        z = torch.linalg.solve(as_matrix(root, len(loc)), (state - loc).unsqueeze(-1)).squeeze(-1)
        self.widening.copy_(_slope(z[:, self.is_real].square().mean(-1), unit))
        # As wide as the rest of the draws make them: moments of what the context does not tell.
        narrowed = loc + (state - loc) * torch.where(self.is_real, (-(unit @ self.widening)).exp().unsqueeze(-1), 1.0)
        loc, root = moments_on(self.of_one, narrowed)
        self.loc.copy_(loc)
        self.root.copy_(as_matrix(root, len(loc)))
        self.log_det.copy_(torch.linalg.slogdet(self.root).logabsdet)

    def in_order(self, searched: Tensor) -> Tensor:
        """Each is the nearest of the rest to those before."""
        unit, order = self.in_units(searched), [0]
        while len(order) < len(searched):
            distance = torch.cdist(unit[order], unit).amin(0)
            distance[order] = torch.inf
            order.append(int(distance.argmin()))
        return searched[order]

    def begin_from(self, found: Replicates, generator: torch.Generator) -> KnownDraws:
        rows = systematic(found.log_weight, len(found.x), generator)
        return KnownDraws(found.x[rows], found.log_prob[rows], found.estimate)

    def _log_width(self, unit: Tensor) -> Tensor:
        """With shape (*, d), for contexts in the units of states, with shape (*, C)."""
        return (unit @ self.widening).unsqueeze(-1) * self.is_real


def _slope(mean_square: Tensor, unit: Tensor) -> Tensor:
    """What the log of a width gains per unit of each number of a context, with shape (C).

    Arguments:
        mean_square: of the real coordinates of n draws, with shape (n).
        unit: their contexts, with shape (n, C).
    """
    contexts, group = unit.unique(dim=0, return_inverse=True)
    if len(contexts) < CONTEXTS_OF_A_WIDTH * (1 + unit.shape[-1]):
        return torch.zeros_like(unit[0])
    sums = torch.zeros_like(contexts[:, 0]).index_add(0, group, mean_square)
    counts = group.bincount(minlength=len(contexts)).to(sums)
    features = torch.cat([torch.ones_like(contexts[:, :1]), contexts], -1) * counts.sqrt().unsqueeze(-1)
    log_width = 0.5 * (sums / counts).log() * counts.sqrt()
    return torch.linalg.lstsq(features, log_width.unsqueeze(-1)).solution[1:, 0]
