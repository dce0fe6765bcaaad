"""Coordinates that a search finds: affine, or bent where the target is."""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline import GaussianComponents, Replicates, reference
from diffsampler.baseline.curved import CurvedMap, fit_map, with_tail
from diffsampler.baseline.part_groups import Parts
from diffsampler.baseline.proposal import Proposal
from diffsampler.baseline.unbounded import unbounded
from diffsampler.baseline.wander import more_draws
from diffsampler.coordinates.found import FoundCoordinates
from diffsampler.coordinates.supported import SupportCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.errors import check_count
from diffsampler.log_z.estimate import EVEN
from diffsampler.spaces.kernels import HALF_LOG_TWO_PI
from diffsampler.streams import new_generator
from diffsampler.target import Target

BETTER = 1.2  # times the effective sample size of an affine map, for a bent one
NUM_TRIED = 4  # maps of the search's own: in one of those it may have ended up after many rounds
USEFUL = 0.05  # an effective sample size below which a bend is one through several pieces


class SearchedCoordinates(SupportCoordinates, FoundCoordinates):
    """The coordinates in which the target is as nearly N(0, I) as a search can tell.

    Until `search` they change nothing. Where the target is one bent piece (a funnel, a banana, a hierarchical model)
    they bend along, and they draw in tails that are heavier than normal ones; else they are affine: mean 0 and
    covariance I. The draws that they were found by are kept, in checkpoints too: training can start from them. Where
    the target declares a support, all this is so of y, from where it is mapped to x.

    Arguments:
        target: its dimension counts.
        num_points: how many draws are kept, at least 2.

    Attributes:
        reference: what the search estimated log Z to be, None before it.
        bend: the map from z to x, or to y where a support is declared; None where it is affine.
        mixture: of Gaussians in z, where the draws are several pieces; None where they are one.
        proposal: what the search ended with, in y, from which that of another target can begin.
    """

    def __init__(self, target: Target, num_points: int = 10_000) -> None:
        super().__init__(target)
        self.register_buffer(
            "points", torch.zeros(check_count("num_points", num_points, minimum=2), target.dim).double()
        )
        self.bend: CurvedMap | None = None
        self.mixture: GaussianComponents | None = None
        self.proposal: Proposal | None = None

    def get_mixture(self) -> GaussianComponents | None:
        """What draws are made of in z, where that is several pieces."""
        return self.mixture

    def get_extra_state(self) -> dict[str, Any]:
        return {
            **super().get_extra_state(),
            "mixture": None if self.mixture is None else self.mixture.to_dict(),
            "bend": None if self.bend is None else asdict(self.bend),
            "proposal": None if self.proposal is None else self.proposal.to_dict(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        made = {"mixture": GaussianComponents, "bend": CurvedMap.from_dict, "proposal": Proposal.from_dict}
        for name, make in made.items():
            setattr(self, name, None if state.get(name) is None else make(**state[name]))

    @property
    def is_affine(self) -> bool:
        return super().is_affine and self.bend is None

    def to_y(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.bend is None:
            return super().to_y(z)
        y, log_det = self.bend.to(z.device).forward(z.reshape(-1, z.shape[-1]))
        return y.view_as(z), log_det.view(z.shape[:-1])

    def from_y(self, y: Tensor) -> Tensor:
        if self.bend is None:
            return super().from_y(y)
        return self.bend.to(y.device).inverse(y.reshape(-1, y.shape[-1]))[0].view_as(y)

    @torch.no_grad()
    def search(
        self,
        counter: CountedTarget,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        max_evaluations: int | None = None,
    ) -> Replicates:
        generator = new_generator("search", seed, device=self.loc.device)
        known = None if self.is_found or self.proposal is None else self.proposal.to(self.loc.device)
        with unbounded(counter):
            found = reference(
                counter, generator=generator, progress=progress, max_evaluations=max_evaluations, known=known
            )
            # What is fitted to points is judged by others.
            learned, held_out = found.split(1 - self.num_held_out / len(self.points), generator)
            y = self._draws(counter, learned, len(self.points_to_learn), generator)
            apart = self._draws(counter, held_out, self.num_held_out, generator)
        fitted = GaussianComponents.fitted_to(y)
        self.loc.copy_(fitted.loc[0])
        self.matrix.copy_(fitted.factor[0])
        self.log_det.copy_(torch.linalg.slogdet(self.matrix).logabsdet)
        affine = CurvedMap.affine(self.loc, self.matrix)
        heaviest = found.prior.log_weight.topk(min(NUM_TRIED, len(found.prior.parts))).indices.tolist()
        bent = [fit_map(y), *(found.prior.parts[k].map for k in heaviest)]
        candidates = [with_tail(affine, y), *bent, *(with_tail(one, y) for one in bent)]
        ess, best = max(((_ess(candidate, held_out), candidate) for candidate in candidates), key=lambda pair: pair[0])
        better = best.is_bent and ess > max(BETTER * _ess(affine, held_out), USEFUL)
        self.bend = best if better else None
        self.mixture = self._fitted_mixture(best if better else affine, held_out, y)
        self.proposal, self.is_warm = found.prior, found.is_warm
        y = torch.cat([y, apart])
        self.keep(counter, y if self.onto is None else self.onto.forward(y)[0], found.estimate)
        return found.in_x(self.onto)

    def _draws(self, counter: CountedTarget, found: Replicates, n: int, generator: torch.Generator) -> Tensor:
        """n points, with shape (n, D), near those that were found.

        A proposal that was known already has draws enough of its own: moves would cost as much as all the rest.
        """
        is_enough = found.is_warm and found.estimate.ess > EVEN
        return found.resampled(n, generator) if is_enough else more_draws(counter, found, n, generator)

    def _fitted_mixture(self, to_y: CurvedMap, held_out: Replicates, y: Tensor) -> GaussianComponents | None:
        """Gaussians in z around the pieces of what was found, if they tell more than N(0, I)."""
        parts = held_out.prior.parts[1:]
        if not parts:
            return None
        label = Parts(parts).log_prob(y).argmax(0)
        mixture = GaussianComponents.around(to_y.inverse(y)[0], label)
        if mixture is None or len(mixture.loc) == 1:
            return None
        z, log_det = to_y.inverse(held_out.x)
        log_prob = held_out.log_prob + log_det - held_out.estimate.log_z
        ess = _ess_of(log_prob - mixture.log_prob(z))
        return mixture if ess > BETTER * _ess(to_y, held_out) else None


def _ess(found_map: CurvedMap, found: Replicates) -> float:
    """The effective sample size of images of normal draws, judged from draws of the target: 1 / E[w] there."""
    z, log_det = found_map.inverse(found.x)
    log_normal = -0.5 * z.square().sum(-1) - log_det - z.shape[-1] * HALF_LOG_TWO_PI
    return _ess_of(found.log_prob - found.estimate.log_z - log_normal)


def _ess_of(log_weight: Tensor) -> float:
    """From log-weights of draws of the target, with shape (n)."""
    return math.exp(min(math.log(len(log_weight)) - float(log_weight.logsumexp(0)), 0.0))
