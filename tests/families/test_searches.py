"""What searches at a few contexts say of all: references, draws, and coordinates, before anything is learned."""

import math

import pytest
import torch
from helpers import Z_BOUND
from torch import Tensor

from diffsampler import Sampler
from diffsampler.behaviours import SearchedMembers
from diffsampler.families import Family


class Moving(Family):
    """exp(2 c) N(x; 3 c, (1 + c)^2 / 4): members with little in common, and log Z = 2 c."""

    def __init__(self) -> None:
        super().__init__(1, 1)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        width = 0.5 + 0.5 * context[..., 0]
        squares = ((x[..., 0] - 3 * context[..., 0]) / width).square()
        return 2 * context[..., 0] - 0.5 * squares - (width * math.sqrt(2 * math.pi)).log()

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 1, generator=generator)


@pytest.fixture(scope="module")
def searched() -> Sampler:
    torch.set_default_dtype(torch.float64)
    sampler = Sampler(Moving())
    sampler.search(seed=0)
    return sampler


def test_searches_tell_log_z_and_places_of_members_that_were_not_searched(searched: Sampler) -> None:
    for c in (0.02, 0.37, 0.81):
        member = searched.given(c)
        half = 0.5 * (member.reference.high - member.reference.low)
        # A few hundredths of a nat, by the searches' own errors; a verdict compares with this. Nine figures.
        assert abs(member.reference.log_z - 2 * c) < Z_BOUND * half / 1.96 and half < 0.06
        assert member.estimate_log_z(500, seed=0).ess > 0.9  # normal in these coordinates
        z = (member.coordinates.points - 3 * c) / (0.5 + 0.5 * c)
        # Of 4000 draws for all contexts, of which some hundreds are effective at an end.
        assert abs(float(z.mean())) < Z_BOUND / math.sqrt(400)
        assert abs(float(z.var()) - 1) < Z_BOUND * math.sqrt(2 / 400)


def test_draws_of_contexts_in_between_are_theirs(searched: Sampler) -> None:
    x, context = searched.coordinates.points.unbind(-1)
    assert len(context.unique()) > 40  # eight were searched
    z = (x - 3 * context) / (0.5 + 0.5 * context)
    # 20 000 draws, copies of 4000 at most: means of 1, z, and z against the context.
    figures = torch.stack([z, (z.square() - 1) / math.sqrt(2), z * (context - 0.5) * math.sqrt(12)])
    assert (figures.mean(-1).abs() < Z_BOUND / math.sqrt(2000)).all()


def test_found_points_come_in_groups_of_one_context(searched: Sampler) -> None:
    """Losses compare paths of one context."""
    points = SearchedMembers().end_points(searched.dynamics, 384, torch.Generator().manual_seed(0), 0.0)
    contexts, counts = points[:, 1].unique(return_counts=True)
    assert len(points) == 384 and len(contexts) <= 3 and counts.min() >= 128
