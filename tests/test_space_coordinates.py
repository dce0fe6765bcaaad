"""Coordinates of a target that declares its space: found by a search, with the symmetry of the space."""

import copy
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from helpers import assert_mean, randomise
from lightning.pytorch.callbacks import ModelCheckpoint
from on_spaces import angles_beside_a_real, springs, two_angles, two_fields
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target, fit
from diffsampler.behaviours import SearchedPoints
from diffsampler.coordinates import DensityInCoordinates, MeanFreeCoordinates, SearchedCoordinates, SpaceCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.networks import FourierMLP
from diffsampler.processes import PinnedBrownian
from diffsampler.spaces import Particles, Product

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SOME = 40_000  # evaluations of a search


def wide_springs() -> FunctionTarget:
    return springs(scale=7.0)


def springs_beside_angles() -> FunctionTarget:
    cluster, angles = springs(scale=0.2), two_angles()
    space = Product([Particles(3, 2), angles.space])
    return FunctionTarget(
        lambda x: cluster.log_prob(x[..., :6]) + angles.log_prob(x[..., 6:]),
        8,
        log_z=cluster.log_z + angles.log_z,
        space=space,
    )


MAKERS = [wide_springs, two_angles, angles_beside_a_real, two_fields, springs_beside_angles]
every_target = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


@lru_cache
def state_of(make: Callable[[], Target]) -> dict[str, object]:
    coordinates = SpaceCoordinates(make(), 500)
    coordinates.search(CountedTarget(make()), seed=1, max_evaluations=SOME)
    return coordinates.state_dict()


def found(make: Callable[[], Target]) -> SpaceCoordinates:
    coordinates = SpaceCoordinates(make(), 500)
    coordinates.load_state_dict(copy.deepcopy(state_of(make)))
    return coordinates


def states(coordinates: SpaceCoordinates, n: int = 6) -> Tensor:
    z = torch.randn(n, coordinates.dim, generator=torch.Generator().manual_seed(2))
    return coordinates.space.wrap(z)


@every_target
@pytest.mark.parametrize("is_found", [False, True], ids=["before", "after"])
def test_there_and_back_with_the_determinant_of_autograd(make: Callable[[], Target], is_found: bool) -> None:
    coordinates = found(make) if is_found else SpaceCoordinates(make())
    assert coordinates.is_found == is_found
    z = states(coordinates).view(2, 3, -1)
    x, log_det = coordinates(z)
    assert x.shape == (2, 3, coordinates.target_dim) and log_det.shape == (2, 3) and log_det.dtype == torch.float64
    torch.testing.assert_close(coordinates.inverse(x), z)
    torch.testing.assert_close(coordinates.inverse(x[0, 0]), z[0, 0])
    jacobian = torch.autograd.functional.jacobian(lambda z: coordinates(z)[0], z[0, 0])
    torch.testing.assert_close(0.5 * torch.linalg.slogdet(jacobian.T @ jacobian).logabsdet, log_det[0, 0])
    if not is_found:
        # An isometry: nothing is known yet.
        torch.testing.assert_close(jacobian.T @ jacobian, torch.eye(coordinates.dim))


@every_target
def test_the_score_is_the_gradient(make: Callable[[], Target]) -> None:
    coordinates = found(make)
    density = DensityInCoordinates(make(), coordinates)
    z = states(coordinates).requires_grad_()
    log_prob, score = density.log_prob_and_score(z.detach())
    torch.testing.assert_close(log_prob, density.log_prob(z.detach()))
    torch.testing.assert_close(score, torch.autograd.grad(density.log_prob(z).sum(), z)[0])


@every_target
def test_points_of_all_turns_have_one_name(make: Callable[[], Target], generator: torch.Generator) -> None:
    coordinates = found(make)
    z = states(coordinates)
    x = coordinates(z)[0]
    turns = 2 * math.pi * torch.randint(-2, 3, z.shape, generator=generator) * coordinates.space.angles
    there = coordinates._space.to_target(coordinates._space.from_target(x) + turns)
    torch.testing.assert_close(coordinates.inverse(there), z)


@every_target
def test_the_density_is_of_unit_scale_in_them(make: Callable[[], Target]) -> None:
    coordinates = found(make)
    z = coordinates.inverse(coordinates.points)
    reals = ~coordinates.space.angles
    # Half a thousand draws, resampled from some more: a fifth is three standard errors of each mean and four of a
    # width; bounds on a mistake, not on chance.
    if reals.any():
        assert z[:, reals].mean(0).abs().max() < 0.2 and (z[:, reals].std(0) - 1).abs().max() < 0.2
    torch.testing.assert_close(z[:, ~reals], coordinates.space.wrap(z)[:, ~reals])
    # A root of a lattice has the symmetry of it, one of particles is a number.
    if make is wide_springs:
        torch.testing.assert_close(coordinates.root, coordinates.root[0, 0] * torch.eye(4))


def test_roots_of_a_lattice_commute_with_shifts() -> None:
    coordinates = found(two_fields)
    space, z = coordinates.space, states(coordinates)
    for shift in ((1, 0), (0, 1), (2, 1)):
        there = space.fields(z).roll(shift, (-2, -1)).flatten(1)
        x = coordinates(there)[0]
        torch.testing.assert_close(x, space.fields(coordinates(z)[0]).roll(shift, (-2, -1)).flatten(1))


def test_float32_walks_in_them_and_is_evaluated_in_float64() -> None:
    coordinates = found(wide_springs).float()
    assert coordinates.loc.dtype == coordinates.points.dtype == torch.float64 and coordinates.precise
    z = states(coordinates).float()
    x, _ = coordinates(z)
    assert x.dtype == torch.float32 == coordinates.inverse(x).dtype
    torch.testing.assert_close(coordinates.inverse(x), z, rtol=1e-4, atol=1e-5)
    asked = []
    target = springs(scale=7.0)
    target.fn = lambda x, fn=target.fn: asked.append(x.dtype) or fn(x)
    DensityInCoordinates(target, coordinates).log_prob(z)
    assert asked == [torch.float64]


def test_what_a_search_leaves() -> None:
    target = springs()
    coordinates = SpaceCoordinates(target, 300)
    counter = CountedTarget(target)
    replicates = coordinates.search(counter, seed=3, max_evaluations=SOME)
    assert coordinates.reference == replicates.estimate and coordinates.points.shape == (300, 6)
    assert coordinates.num_target_evaluations == counter.num_evaluations > replicates.estimate.num_target_evaluations
    # Draws are of mean 0, all different but for what resampling has doubled, and in no order.
    assert coordinates.points.view(300, 3, 2).mean(1).abs().max() < 1e-12
    again = SpaceCoordinates(target, 300)
    again.search(CountedTarget(target), seed=3, max_evaluations=SOME)
    assert torch.equal(again.points, coordinates.points)


@every_target
def test_a_sampler_in_them_has_exact_weights(make: Callable[[], Target]) -> None:
    sampler = Sampler(make(), coordinates=found(make), control=FourierMLP, flow=None, grid=5)
    randomise(sampler.policy.control, 0.03)
    log_weight = sampler.sample(10_000, seed=2, return_log_weights=True)[1]
    weight = (log_weight - make().log_z).exp()
    assert 1e-4 < weight.var() < 30
    assert_mean(weight, 1.0, "E[w] / Z, 7e-6")


@pytest.mark.slow
def test_they_survive_a_checkpoint(tmp_path: Path) -> None:
    sampler = Sampler(wide_springs())
    sampler.search(seed=1, max_evaluations=SOME)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    options = {"batch_size": 16, "steps_per_epoch": 5, "num_eval_samples": 50, "tolerance": 0, **QUIET}
    fit(sampler, max_steps=5, enable_checkpointing=True, callbacks=[keep], ema_decay=0.0, **options)
    other = Sampler(wide_springs())
    other.load_checkpoint(tmp_path / "last.ckpt")
    x, log_weight = sampler.sample(100, seed=4, return_log_weights=True)
    again, log_weight_again = other.sample(100, seed=4, return_log_weights=True)
    assert torch.equal(x, again) and torch.equal(log_weight, log_weight_again)
    assert other.reference.to_dict() == sampler.reference.to_dict() and other.search_cost == sampler.search_cost > 0
    assert torch.equal(other.coordinates.points, sampler.coordinates.points) and not other.search_is_outdated()
    # A resumed run searches no more.
    resumed = Sampler(wide_springs())
    fit(resumed, max_steps=6, ckpt_path=str(tmp_path / "last.ckpt"), **options)
    assert resumed.search_cost == sampler.search_cost
    assert torch.equal(resumed.coordinates.root, sampler.coordinates.root)


def test_another_energy_makes_a_search_outdated() -> None:
    sampler = Sampler(wide_springs())
    assert not sampler.search_is_outdated(), "before any search"
    sampler.coordinates.load_state_dict(SpaceCoordinates(wide_springs()).state_dict())
    assert not sampler.coordinates.is_found
    coordinates, target = found(wide_springs), wide_springs()
    assert not coordinates.is_outdated(CountedTarget(target))
    stronger = FunctionTarget(lambda x: 1.01 * target.log_prob(x), 6, mean_free=3)
    assert coordinates.is_outdated(CountedTarget(stronger))
    assert coordinates.is_outdated(CountedTarget(FunctionTarget(lambda x: target.log_prob(x) + 0.1, 6, mean_free=3)))
    # What float32 rounds is no change.
    assert not coordinates.is_outdated(CountedTarget(FunctionTarget(lambda x: target.fn(x.float()), 6, mean_free=3)))


def test_augmented_points_are_draws_too(generator: torch.Generator) -> None:
    # Rolled back from points that all symmetries move: z has mean 0 and the same square in every direction.
    sampler = Sampler(wide_springs(), coordinates=found(wide_springs), control=FourierMLP, flow=None, grid=3)
    path = SearchedPoints().paths(sampler.dynamics, 20_000, generator, 0.0)
    z = path.x[-1]
    # One draw of 500 and a random rotation each: the mean is 0 to 4.5 standard errors, 7e-6 each of 14 figures.
    for k in range(4):
        assert_mean(z[:, k], 0.0, f"z[{k}]")
        assert_mean(z[:, k].square() - z.square().mean(-1), 0.0, f"z[{k}]^2")
    for first, second in torch.combinations(torch.arange(4)).tolist():
        assert_mean(z[:, first] * z[:, second], 0.0, f"z[{first}] z[{second}]")


def test_coordinates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="num_points must be a whole number of at least 2, got 0"):
        SpaceCoordinates(springs(), 0)
    with pytest.raises(
        InputError, match=r"FunctionTarget lives on Particles\(3, 2\), of 4 dimensions, but SearchedCoord"
    ):
        Sampler(springs(), coordinates=SearchedCoordinates)
    with pytest.raises(InputError, match=r"angles SearchedCoordinates would change: leave coordinates out"):
        Sampler(two_angles(), coordinates=SearchedCoordinates)
    with pytest.raises(InputError, match=r"PinnedBrownian is for states in R\^D, but these live on Circle\(2\)"):
        Sampler(two_angles(), PinnedBrownian, coordinates=SpaceCoordinates)
    chosen = Sampler(springs(), PinnedBrownian, FourierMLP, None, 5)
    assert isinstance(chosen.coordinates, MeanFreeCoordinates)
    with pytest.raises(InputError, match="search is for a sampler with coordinates=SearchedCoordinates, or SpaceCoord"):
        chosen.search()
    with pytest.raises(InputError, match="no points yet"):
        SearchedPoints().paths(Sampler(springs()).dynamics, 3, torch.Generator(), 0.0)
