"""What users' functions do beside returning a log-density: the library's numbers are not theirs to change."""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from helpers import by_name
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target, fit
from diffsampler.baseline import reference
from diffsampler.counted import CountedTarget
from diffsampler.networks import FourierMLP
from diffsampler.processes import AnnealedLangevin, Underdamped

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
MEAN = np.array([0.5, -1.0])


def plain(x: Tensor) -> Tensor:
    """-|x - mean|^2."""
    return -(x - torch.tensor(MEAN).to(x)).square().sum(-1)


def numpy_in_place(x: Tensor) -> Tensor:
    array = x.detach().numpy()
    array -= MEAN
    return torch.as_tensor(-(array**2).sum(-1))


def numpy_sorting(x: Tensor) -> Tensor:
    value = plain(x)
    x.numpy().sort(-1)
    return value


def torch_in_place(x: Tensor) -> Tensor:
    return -x.sub_(torch.tensor(MEAN).to(x)).square().sum(-1)


def torch_scaling_afterwards(x: Tensor) -> Tensor:
    value = plain(x)
    with torch.no_grad():
        x.mul_(0.5)
    return value


def filling_nan(x: Tensor) -> Tensor:
    value = plain(x)
    x.data.fill_(float("nan"))
    return value


def returning_one_buffer() -> Callable[[Tensor], Tensor]:
    """A function that writes its values into the same array at every call, as `out=` does."""
    buffer = np.empty(100_000)

    def function(x: Tensor) -> Tensor:
        array = x.detach().numpy().reshape(-1, 2)
        out = buffer[: len(array)]
        out[:] = -((array - MEAN) ** 2).sum(-1)
        return torch.as_tensor(out).view(x.shape[:-1])

    return function


FUNCTIONS = [numpy_in_place, numpy_sorting, torch_in_place, torch_scaling_afterwards, filling_nan, returning_one_buffer]


@pytest.mark.parametrize("function", FUNCTIONS, ids=by_name)
def test_a_function_that_changes_its_argument_or_its_result(function: Callable) -> None:
    function = function() if function is returning_one_buffer else function
    samplers = [
        Sampler(FunctionTarget(fn, dim=2, differentiable=False), control=FourierMLP, grid=4) for fn in (plain, function)
    ]
    draws = [sampler.sample(300, seed=0, return_log_weights=True, batch_size=100) for sampler in samplers]
    for expected, actual in zip(*draws, strict=True):
        torch.testing.assert_close(actual, expected)
    points = torch.randn(50, 2)
    before, counted = points.clone(), samplers[1].counter
    first, kept = counted.log_prob(points), counted.log_prob(points)
    counted.log_prob(points + 1)
    assert torch.equal(points, before) and torch.equal(first, kept)


@lru_cache
def log_z_by_search(make: Callable) -> float:
    function = make() if make is returning_one_buffer else make
    return reference(FunctionTarget(function, dim=2, differentiable=False), 200, seed=0).estimate.log_z


@pytest.mark.slow
# One that changes its argument and one that changes its result; the others in make test-slow.
@pytest.mark.parametrize(
    "function",
    [pytest.param(one, marks=() if one is returning_one_buffer else pytest.mark.slow) for one in FUNCTIONS],
    ids=by_name,
)
def test_a_search_of_such_a_function(function: Callable) -> None:
    assert log_z_by_search(function) == log_z_by_search(plain)


@pytest.mark.parametrize("function", [torch_in_place, torch_scaling_afterwards, filling_nan], ids=by_name)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=by_name)
def test_the_score_of_such_a_function(function: Callable, context: type) -> None:
    with context():
        x = torch.randn(20, 2)
        before = x.clone()
        for target in (FunctionTarget(function, dim=2), CountedTarget(FunctionTarget(function, dim=2))):
            log_prob, score = target.log_prob_and_score(x)
            torch.testing.assert_close(score, -2 * (before - torch.tensor(MEAN)))
            torch.testing.assert_close(log_prob, plain(before))
    assert torch.equal(x, before)


class ByHand(Target):
    """A target with forces of its own, which it writes over its argument."""

    def log_prob(self, x: Tensor) -> Tensor:
        return plain(x)

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value = plain(x)
        return value, x.sub_(torch.tensor(MEAN).to(x)).mul_(-2)


@pytest.mark.parametrize(
    "process", [None, partial(AnnealedLangevin, sigma=0.5), partial(Underdamped, sigma=0.5)], ids=str
)
def test_forces_written_over_the_argument(process: object) -> None:
    draws = [
        Sampler(target, process=process, grid=4).sample(100, seed=0, return_log_weights=True)
        for target in (FunctionTarget(plain, 2), ByHand(2))
    ]
    for expected, actual in zip(*draws, strict=True):
        torch.testing.assert_close(actual, expected)


def noisy(x: Tensor) -> Tensor:
    return plain(x) + 0.1 * torch.randn(x.shape[:-1], dtype=x.dtype)


def dropping_out(x: Tensor) -> Tensor:
    return plain(torch.nn.functional.dropout(x, 0.2, training=True))


def counting_calls() -> Callable[[Tensor], Tensor]:
    calls = []

    def function(x: Tensor) -> Tensor:
        calls.append(0)
        return plain(x) - 0.01 * len(calls)

    return function


def normalised_in_the_batch(x: Tensor) -> Tensor:
    return plain(x - x.mean(0, keepdim=True))


def the_same_noise_for_every_batch(x: Tensor) -> Tensor:
    noise = torch.randn(x.shape[:-1], generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    return plain(x) + noise


RANDOM = [noisy, dropping_out, counting_calls]
BATCHES = [normalised_in_the_batch, the_same_noise_for_every_batch]


@pytest.mark.parametrize("function", [*RANDOM, *BATCHES], ids=by_name)
@pytest.mark.parametrize("start", ["search", "fit with a process", "reference"])
def test_a_function_that_answers_differently_is_named(function: Callable, start: str) -> None:
    expected = "depends on the other points" if function in BATCHES else "is random: it gives other values"
    target = FunctionTarget(function() if function is counting_calls else function, dim=2)
    with pytest.raises(InputError, match=rf"FunctionTarget\.log_prob .*{expected}"):
        if start == "reference":
            reference(target, seed=0)
        else:
            fit(Sampler(target, grid=None if start == "search" else 5), max_steps=2, **QUIET)


@pytest.mark.usefixtures("single_precision")
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_rounding_is_no_randomness(scale: float) -> None:
    # Sums over products of other shapes: float32 rounds each batch differently.
    matrix = scale * torch.randn(50, 50)
    target = FunctionTarget(lambda x: -((x.float() @ matrix) ** 2).sum(-1) + (matrix @ matrix.T).sum(), dim=50)
    fit(Sampler(target, grid=3), max_steps=1, batch_size=4, num_eval_samples=10, **QUIET)


@pytest.fixture
def single_precision() -> None:
    """As users have it."""
    torch.set_default_dtype(torch.float32)
