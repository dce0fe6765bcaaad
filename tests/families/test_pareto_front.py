"""Fronts and their hypervolume, by hand and by inclusion and exclusion; draws of all preferences."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsampler import InputError, Sampler
from diffsampler.curves import hypervolume, non_dominated, pareto_front
from diffsampler.families import Scalarised, Tempered
from diffsampler.networks import FourierMLP
from diffsampler.processes import VariancePreserving
from targets import Gaussian


def by_inclusion_and_exclusion(points: Tensor) -> float:
    """Boxes from 0, any of which meet in a box."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in combinations(range(len(points)), size):
            total += (-1) ** (size + 1) * float(points[list(some)].amin(0).prod())
    return total


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        ([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]], 6.0),
        ([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.0, 1.0], [-1.0, 9.0]], 6.0),
        ([[2.0, 2.0], [2.0, 2.0]], 4.0),
        ([[1.0, 2.0, 3.0], [3.0, 1.0, 1.0]], 8.0),
        ([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [1.0, 1.0, 2.0]], 3.0),
        ([[2.0]], 2.0),
        ([[-1.0, 2.0]], 0.0),
    ],
    ids=str,
)
def test_the_hypervolume_of_a_few_boxes(points: list[list[float]], volume: float) -> None:
    points = torch.tensor(points, dtype=torch.float64)
    assert hypervolume(points, torch.zeros(points.shape[1])) == pytest.approx(volume)
    shifted = torch.arange(points.shape[1], dtype=torch.float64)
    assert hypervolume(points + shifted, shifted) == pytest.approx(volume)


@pytest.mark.parametrize("num_objectives", [2, 3, 4, 5])
def test_the_hypervolume_is_that_of_the_union(num_objectives: int) -> None:
    points = torch.rand(9, num_objectives, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = hypervolume(points, torch.zeros(num_objectives))
    assert found == pytest.approx(by_inclusion_and_exclusion(points), rel=1e-10)


def test_what_is_not_dominated() -> None:
    points = torch.tensor([[1.0, 3.0], [2.0, 2.0], [2.0, 1.0], [3.0, 1.0], [2.0, 2.0], [1.0, 3.5], [3.0, 0.0]])
    assert non_dominated(points).tolist() == [False, True, False, True, True, True, False]
    many = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    better = (many[:, None] >= many).all(-1) & (many[:, None] > many).any(-1)
    assert torch.equal(non_dominated(many), ~better.any(0))


def untrained(num_objectives: int) -> Sampler:
    rewards = [Gaussian(mean=mean, covariance=1.0) for mean in ([0.6, 0.0], [-0.6, 0.0], [0.0, 0.6])]
    family = Scalarised(rewards[:num_objectives])
    return Sampler(family, process=VariancePreserving, control=FourierMLP, grid=8)


@pytest.mark.parametrize("num_objectives", [2, 3])
def test_a_front_has_the_best_draws_of_all_preferences(num_objectives: int, tmp_path: Path) -> None:
    preferences = torch.eye(num_objectives).double()
    found = pareto_front(untrained(num_objectives), preferences, 200, seed=1, reference=[-5.0] * num_objectives)
    assert found.objectives.shape == (num_objectives, 200, num_objectives)
    flat = found.objectives.flatten(0, 1)
    torch.testing.assert_close(flat, found.objectives.reshape(-1, num_objectives))
    assert torch.equal(found.is_on_front.flatten(), non_dominated(flat))
    assert found.hypervolume == pytest.approx(hypervolume(flat, torch.full((num_objectives,), -5.0)))
    # Each preference alone is N(m_k, I): its own reward is the highest there, by 0.36 in the mean over 200 draws.
    assert torch.equal(found.objectives.mean(1).argmax(1), torch.arange(num_objectives))
    assert f"hypervolume {found.hypervolume:.5g} above (-5" in str(found)
    assert len(json.loads(json.dumps(found.to_dict()))["front"]) == len(found.front)
    found.plot().savefig(tmp_path / "front.png")


def test_the_front_of_two_gaussians_is_between_their_means() -> None:
    """Where the rewards are N(+-0.6, I), what is not dominated by more than a little lies close to the first axis."""
    found = pareto_front(untrained(2), [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]], 1000, seed=0)
    x = found.x[found.is_on_front]
    assert x[:, 1].abs().max() < 0.5 and x[:, 0].abs().max() < 1.0
    assert torch.equal(found.reference, found.objectives.flatten(0, 1).amin(0))


def test_what_has_no_front_is_refused() -> None:
    sampler = untrained(2)
    with pytest.raises(InputError, match="pareto_front is for samplers of Scalarised, got one of Tempered"):
        pareto_front(Sampler(Tempered(Gaussian(mean=[0.0], covariance=1.0))), [[1.0]])
    with pytest.raises(InputError, match="preferences must be a list of contexts, one at least"):
        pareto_front(sampler, [])
    with pytest.raises(InputError, match="context must be preferences"):
        pareto_front(sampler, [[0.5, 0.6]])
    with pytest.raises(InputError, match="reference must be 2 finite log rewards"):
        pareto_front(sampler, [[0.5, 0.5]], 10, reference=[0.0])
