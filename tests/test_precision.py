"""log Z of densities whose logs are large numbers: float32 must not decide, and what float64 cannot hold is said."""

import math
from functools import partial

import pytest
import torch
from helpers import by_name
from torch import Tensor

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.coordinates import ScaledCoordinates
from diffsampler.counted import CountedTarget
from diffsampler.losses import TrajectoryBalance
from diffsampler.networks import FourierMLP
from diffsampler.processes import PinnedBrownian, Underdamped, VariancePreserving

LOG_Z = math.log(2 * math.pi * 0.25)
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def gaussian(x: Tensor) -> Tensor:
    """N(0.3, 0.25 I) in the plane, not normalised."""
    return -0.5 * (x - 0.3).square().sum(-1) / 0.25


def cancelling(x: Tensor) -> Tensor:
    """The same, as the difference of two numbers of 1e8."""
    large = (x + 1e4).square().sum(-1)
    return gaussian(x) + (large - (x.square() + 2e4 * x + 1e8).sum(-1))


PARTS = [
    ("PinnedBrownian", lambda: {"process": PinnedBrownian}),
    ("without score", lambda: {"control": FourierMLP}),
    ("coordinates", lambda: {"coordinates": lambda target: ScaledCoordinates(target, 0.7, 0.1)}),
    ("prior", lambda: {"process": VariancePreserving, "flow": None}),
    pytest.param(("momenta", lambda: {"process": partial(Underdamped, sigma=0.7)}), marks=pytest.mark.slow),
]


@pytest.fixture
def single_precision() -> None:
    """As users have it."""
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("parts", PARTS, ids=by_name)
@pytest.mark.usefixtures("single_precision")
def test_a_constant_moves_log_z_and_nothing_else(parts: tuple) -> None:
    estimates = []
    for constant in (0.0, 1e8, -1e11):
        sampler = Sampler(FunctionTarget(lambda x, c=constant: gaussian(x) + c, dim=2), grid=8, **parts[1]())
        loss = None if sampler.policy.flow is not None else TrajectoryBalance()
        fit(sampler, max_steps=10, steps_per_epoch=10, num_eval_samples=200, batch_size=64, loss=loss, **QUIET)
        estimate = sampler.estimate_log_z(1000, seed=0)
        assert not any("rounded" in warning for warning in estimate.warnings)
        assert sampler.dtype == torch.float32 and sampler.counter.needs_float64 == (constant != 0)
        estimates.append((estimate.log_z - constant, estimate.low - constant, estimate.high - constant))
    for estimate in estimates[1:]:
        assert estimate == pytest.approx(estimates[0], abs=0.1)  # ten steps magnify rounding; float32 errs by nats


@pytest.mark.usefixtures("single_precision")
def test_differences_of_large_terms() -> None:
    parts = {"coordinates": lambda target: ScaledCoordinates(target, 0.5, 0.3), "grid": 10}
    figures = [
        Sampler(FunctionTarget(fn, dim=2), **parts).estimate_log_z(2000, seed=0).log_z for fn in (gaussian, cancelling)
    ]
    assert figures[1] == pytest.approx(figures[0], abs=1e-4)


@pytest.mark.usefixtures("single_precision")
def test_float32_stays_where_it_is_good_enough() -> None:
    dtypes = []

    def watched(x: Tensor) -> Tensor:
        dtypes.append(x.dtype)
        return gaussian(x)

    sampler = Sampler(FunctionTarget(watched, dim=2), grid=4)
    sampler.sample(100, seed=0, return_log_weights=True)
    assert dtypes == [torch.float32] * 5 + [torch.float64]  # the last: sixteen points, to compare
    assert sampler.num_target_evaluations == 5 * 100 + 16


@pytest.mark.parametrize("case", [("float64", 1e17, torch.float64), ("float32", 1e8, torch.float32)], ids=by_name)
@pytest.mark.parametrize("alone", [True, False])
def test_what_rounding_leaves_is_said(case: tuple, alone: bool) -> None:
    _, constant, dtype = case
    target = FunctionTarget(lambda x: gaussian(x.to(dtype)) + constant, dim=2)
    if alone:
        from diffsampler.baseline import GaussianComponents, smc

        prior = GaussianComponents.fitted_to(torch.randn(100, 2, dtype=torch.float64))
        estimate = smc(target, prior, 200, seed=0).estimate
    else:
        estimate = Sampler(target, grid=4, control=FourierMLP).estimate_log_z(1000, seed=0)
    assert any("are rounded to" in warning and "take the constant off" in warning for warning in estimate.warnings)
    assert estimate.low < constant + LOG_Z < estimate.high


def test_a_difference_in_dtype_alone_is_no_warning() -> None:
    target = FunctionTarget(lambda x: gaussian(x.float()), dim=2)
    counted = CountedTarget(target)
    assert counted.log_prob(torch.zeros(3, 2)).dtype == torch.float64
    assert counted.rounding == torch.finfo(torch.float32).eps
    estimate = Sampler(target, grid=4, control=FourierMLP).estimate_log_z(1000, seed=0)
    assert not any("rounded" in warning for warning in estimate.warnings)
