"""Paths rolled back from points of a family: many of one context at a time, or exact draws of all."""

import torch
from torch import Tensor

from diffsampler.behaviours.known_points import KnownPoints, SearchedPoints
from diffsampler.errors import InputError, check_count
from diffsampler.families import Joint
from diffsampler.families.contexts import REPEATS, draw_jointly
from diffsampler.paths import Dynamics


class SearchedMembers(SearchedPoints):
    """What a family was searched for, as many points of one context at a time as its own rollouts have.

    Losses compare paths of one context.

    Arguments:
        repeats: paths of one context.
    """

    def __init__(self, repeats: int = REPEATS) -> None:
        self.repeats = check_count("repeats", repeats, minimum=2)

    def end_points(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor:
        coordinates = self.found(dynamics)
        points = coordinates.points_to_learn
        context = dynamics.policy.process.context_of(points)
        first = torch.randint(len(points), (max(1, n // self.repeats),), generator=generator, device=points.device)
        chosen = []
        for row, part in zip(first.tolist(), torch.arange(n).tensor_split(len(first)), strict=True):
            same = (context == context[row]).all(-1).nonzero().squeeze(-1)
            chosen.append(same[torch.randint(len(same), (len(part),), generator=generator, device=points.device)])
        return dynamics.states_at(coordinates.image(points[torch.cat(chosen)], generator), generator)


class JointSamples(KnownPoints):
    """Fresh exact draws of a family, each of a context of its own: parameters from a prior, and data from them."""

    def check(self, dynamics: Dynamics) -> None:
        target = dynamics.target.density.user_target
        if not isinstance(target, Joint) or not target.family.has_joint_samples:
            raise InputError("JointSamples needs a Family with sample_jointly, such as Amortised.")

    def end_points(self, dynamics: Dynamics, n: int, generator: torch.Generator, progress: float) -> Tensor:
        pairs = draw_jointly(dynamics.target.density.user_target.family, n, generator)
        return dynamics.states_at(torch.cat(pairs, -1), generator)
