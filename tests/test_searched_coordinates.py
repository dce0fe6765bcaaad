"""Coordinates that bend with the target: the same density, kept in checkpoints, and normalised."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND, assert_mean, correlated_gaussian, randomise, searched
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from diffsampler import FunctionTarget, Sampler, Target, fit
from diffsampler.coordinates import SearchedCoordinates

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def banana() -> Target:
    """x0 ~ N(0, 2^2), x1 ~ N(x0^2 / 2, 0.5^2), and log Z = 0.4."""

    def log_prob(x: Tensor) -> Tensor:
        y = x[..., 1] - 0.5 * x[..., 0] ** 2
        return 0.4 - 0.125 * x[..., 0] ** 2 - 2 * y**2 - math.log(2 * math.pi)

    return FunctionTarget(log_prob, dim=2, log_z=0.4)


def heavy() -> Target:
    """Student's t with three degrees of freedom, about 2."""
    law = torch.distributions.StudentT(3.0)
    return FunctionTarget(lambda x: law.log_prob(x[..., 0] - 2.0), dim=1, log_z=0.0)


def funnel() -> Target:
    """v ~ N(0, 2^2), two coordinates N(0, exp(v))."""

    def log_prob(x: Tensor) -> Tensor:
        v = x[..., 0]
        rest = -0.5 * x[..., 1:].square().sum(-1) * (-v).exp() - v
        return rest - 0.125 * v**2 - 1.5 * math.log(2 * math.pi) - math.log(2.0)

    return FunctionTarget(log_prob, dim=3, log_z=0.0)


# A map that narrows, the funnel's, has fast tests of its own in baseline/test_curved.py.
BENT_AND_QUICK = [banana, pytest.param(heavy, marks=pytest.mark.slow), pytest.param(funnel, marks=pytest.mark.slow)]


def with_random_networks(make: Callable[[], Target]) -> Sampler:
    """A sampler after its search, whose control is no longer that of nothing learned."""
    sampler = searched(make)
    randomise(sampler.policy.control, 0.05)
    return sampler


@pytest.fixture(params=BENT_AND_QUICK, ids=lambda make: getattr(make, "__name__", ""))
def sampler(request: pytest.FixtureRequest) -> Sampler:
    return with_random_networks(request.param)


@pytest.mark.slow
def test_a_search_bends_what_is_bent(sampler: Sampler) -> None:
    coordinates = sampler.coordinates
    assert coordinates.bend is not None and coordinates.bend.is_bent
    z = torch.randn(10, 4, sampler.target.dim, generator=torch.Generator().manual_seed(1))
    x, log_det = coordinates(z)
    assert x.shape == z.shape and log_det.shape == z.shape[:-1]
    torch.testing.assert_close(coordinates.inverse(x), z, rtol=1e-7, atol=1e-7)
    one = z.reshape(-1, z.shape[-1])
    jacobian = torch.autograd.functional.jacobian(lambda z: coordinates(z)[0].sum(0), one).transpose(0, 1)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det.flatten(), rtol=1e-8, atol=1e-8)


def test_what_is_straight_stays_straight() -> None:
    assert searched(correlated_gaussian).coordinates.bend is None


def test_the_score_in_bent_coordinates_is_the_gradient(sampler: Sampler) -> None:
    density = sampler.density
    z = torch.randn(30, sampler.target.dim, generator=torch.Generator().manual_seed(2))
    log_prob, score = density.log_prob_and_score(z)
    torch.testing.assert_close(log_prob, density.log_prob(z))
    by_autograd = torch.autograd.functional.jacobian(lambda z: density.log_prob(z).sum(), z)
    torch.testing.assert_close(score, by_autograd, rtol=1e-8, atol=1e-8)
    with torch.inference_mode():
        torch.testing.assert_close(density.log_prob_and_score(z.clone())[1], score)


@pytest.mark.parametrize("make", BENT_AND_QUICK)
def test_bent_coordinates_are_nearly_normal_before_any_training(make: Callable[[], Target]) -> None:
    sampler = searched(make)
    estimate = sampler.estimate_log_z(4000, seed=1)
    # 4.5 standard errors, 7e-6 each.
    error = (estimate.high - estimate.low) / 3.92
    assert estimate.ess > 0.8 and abs(estimate.log_z - sampler.target.log_z) < Z_BOUND * error, estimate


def test_weights_in_bent_coordinates_are_unbiased(sampler: Sampler) -> None:
    x, log_weight = sampler.sample(4000, seed=3, return_log_weights=True)
    # Two z-tests, 1.4e-5; the second figure is bounded: its mean is known in closed form, by symmetry or by the median.
    weight = (log_weight - sampler.target.log_z).exp()
    assert_mean(weight, 1.0, "E[w] / Z")
    centre = 2.0 if sampler.target.dim == 1 else 0.0
    assert_mean(weight * (x[:, 0] - centre).sign(), 0.0, "half of the mass is on each side")
    path = sampler.rollback(x[:7], torch.Generator().manual_seed(1))
    torch.testing.assert_close(sampler.coordinates(path.x[-1])[0], x[:7], rtol=1e-6, atol=1e-6)


def test_float32_walks_in_bent_coordinates() -> None:
    torch.set_default_dtype(torch.float32)
    sampler = with_random_networks(banana)
    x, log_weight = sampler.sample(4000, seed=3, return_log_weights=True)
    assert x.dtype == torch.float32 and log_weight.dtype == torch.float64
    assert_mean((log_weight - 0.4).exp(), 1.0, "E[w], 7e-6")


@pytest.mark.slow
@pytest.mark.parametrize("make", [pytest.param(heavy, marks=pytest.mark.slow), banana], ids=lambda make: make.__name__)
def test_the_density_in_bent_coordinates_has_the_integral_one(make: object) -> None:
    # Random networks: the flow is not the identity.
    sampler = with_random_networks(make)
    if sampler.target.dim == 1:
        # x = 2 + sinh(u): beyond 10 000 widths are 1e-7 of the mass of four moments' tails.
        u = torch.linspace(-10, 10, 161)
        x, log_cell = 2 + u.sinh()[:, None], u.cosh().log() + math.log(float(u[1] - u[0]))
    else:
        # Along the parabola, which has the Jacobian one: more than five widths of either.
        a, b = torch.linspace(-11, 11, 45), torch.linspace(-3, 3, 33)
        y = torch.cartesian_prod(a, b)
        x = torch.stack([y[:, 0], y[:, 1] + 0.5 * y[:, 0] ** 2], -1)
        log_cell = torch.full((len(x),), math.log(float(a[1] - a[0]) * float(b[1] - b[0])))
    integral = float((sampler.log_prob(x, tolerance=1e-4) + log_cell).exp().sum())
    assert abs(integral - 1) < 2e-3, integral


def test_a_bend_is_part_of_the_state(sampler: Sampler) -> None:
    other = Sampler(sampler.target)
    assert other.coordinates.bend is None
    other.load_state_dict(copy.deepcopy(sampler.state_dict()))
    assert torch.equal(other.sample(50, seed=4), sampler.sample(50, seed=4))
    other.load_state_dict(Sampler(sampler.target).state_dict())
    assert other.coordinates.bend is None and not other.coordinates.is_found


def test_a_bend_survives_a_checkpoint(tmp_path: Path) -> None:
    sampler = searched(banana)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    options = {"batch_size": 16, "steps_per_epoch": 5, "num_eval_samples": 50, **QUIET}
    fit(sampler, max_steps=5, tolerance=0, enable_checkpointing=True, callbacks=[keep], ema_decay=0.0, **options)
    other = Sampler(banana())
    other.load_checkpoint(tmp_path / "last.ckpt")
    assert other.coordinates.bend is not None
    x, log_weight = sampler.sample(100, seed=4, return_log_weights=True)
    again, log_weight_again = other.sample(100, seed=4, return_log_weights=True)
    assert torch.equal(x, again) and torch.equal(log_weight, log_weight_again)
    assert other.reference == sampler.reference and other.search_cost == sampler.search_cost
    assert not other.search_is_outdated()
    # A resumed run walks along the same bend, and does not search again.
    resumed = Sampler(banana())
    fit(resumed, max_steps=6, tolerance=0, ckpt_path=str(tmp_path / "last.ckpt"), **options)
    assert resumed.search_cost == sampler.search_cost
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resumed.coordinates(z)[0], sampler.coordinates(z)[0])


@pytest.mark.slow
def test_a_search_of_other_data_straightens_the_old_bend() -> None:
    sampler = searched(banana)
    sampler.target.fn = correlated_gaussian().log_prob
    assert sampler.search_is_outdated()
    sampler.search(seed=0)
    assert sampler.coordinates.bend is None
    assert abs(sampler.estimate_log_z(4000, seed=1).log_z - 0.8) < 0.1


def test_coordinates_of_their_own_process(generator: torch.Generator) -> None:
    from diffsampler.networks import LangevinControl
    from diffsampler.processes import VariancePreserving

    # A control that asks for the score, in bent coordinates.
    sampler = Sampler(
        banana(), process=VariancePreserving, control=LangevinControl, grid=8, coordinates=SearchedCoordinates
    )
    sampler.coordinates.load_state_dict(searched(banana).coordinates.state_dict())
    randomise(sampler.policy.control, 0.02)
    _, log_weight = sampler.sample(4000, return_log_weights=True, generator=generator)
    assert_mean((log_weight - 0.4).exp(), 1.0, "E[w] / Z, 7e-6")
