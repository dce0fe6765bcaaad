"""Targets as the user writes them, and as the library reads them."""

import math

import pytest
import torch
from helpers import CountingTarget, by_name, correlated_gaussian, two_modes
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target
from diffsampler.counted import CountedTarget
from diffsampler.networks import FourierMLP, LangevinControl
from targets import Gaussian


def test_function_target_keeps_what_it_is_given() -> None:
    target = FunctionTarget(lambda x: -(x - 1).abs().sum(-1), dim=3, log_z=3 * math.log(2), plot_range=(-2.0, 5.0))
    assert (target.dim, target.log_z, target.plot_range) == (3, 3 * math.log(2), (-2.0, 5.0))
    x = torch.tensor([[[1.0, 2.0, -1.0]], [[0.0, 0.0, 4.0]]])
    assert torch.equal(target.log_prob(x), torch.tensor([[-3.0], [-5.0]]))
    assert not target.has_exact_samples and Gaussian([0.0]).has_exact_samples
    with pytest.raises(NotImplementedError, match="FunctionTarget"):
        target.sample(3)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_autograd_score_equals_the_closed_form(leading: tuple[int, ...], generator: torch.Generator) -> None:
    for closed in (Gaussian([0.4, -0.3], [[0.9, 0.3], [0.3, 0.6]]), two_modes()):
        x = torch.randn(*leading, 2, generator=generator)
        log_prob, score = FunctionTarget(closed.log_prob, dim=2).log_prob_and_score(x)
        expected_log_prob, expected_score = closed.log_prob_and_score(x)
        torch.testing.assert_close(log_prob, expected_log_prob, msg=type(closed).__name__)
        torch.testing.assert_close(score, expected_score, msg=type(closed).__name__)
        assert torch.equal(FunctionTarget(closed.log_prob, dim=2).score(x), score)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=by_name)
def test_score_under_every_grad_mode(context: type) -> None:
    with context():
        x = torch.tensor([[1.0, -2.0]])
        log_prob, score = FunctionTarget(lambda x: -(x**2).sum(-1), dim=2).log_prob_and_score(x)
    assert torch.equal(score, torch.tensor([[-2.0, 4.0]])) and torch.equal(log_prob, torch.tensor([-5.0]))
    assert not score.requires_grad and not log_prob.requires_grad


BAD_FUNCTIONS = [
    ("one value for each coordinate", lambda x: -(x**2), "shape"),
    ("a trailing axis", lambda x: -(x**2).sum(-1, keepdim=True), "shape"),
    ("one value for all points", lambda x: -(x**2).sum(), "shape"),
    ("a number", lambda x: 3.0, "float"),
    ("nothing", lambda x: None, "NoneType"),
]


@pytest.mark.parametrize("control", [FourierMLP, LangevinControl])
@pytest.mark.parametrize("case", BAD_FUNCTIONS, ids=by_name)
def test_bad_functions_are_named(case: tuple, control: type) -> None:
    sampler = Sampler(FunctionTarget(case[1], dim=2), control=control, grid=2)
    with pytest.raises(InputError, match=rf"FunctionTarget\.log_prob.*{case[2]}"):
        sampler.sample(5, seed=0)


@pytest.mark.parametrize("data", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("asked", [torch.float32, torch.float64], ids=str)
def test_constants_of_either_precision(data: torch.dtype, asked: torch.dtype) -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]], dtype=data)
    target = FunctionTarget(lambda x: -((x @ features.T) ** 2).sum(-1), dim=2)
    x = torch.tensor([[0.5, -1.0], [2.0, 1.0]], dtype=asked)
    for _ in range(2):  # found out, then known
        log_prob, score = CountedTarget(target).log_prob_and_score(x)
        assert log_prob.dtype == torch.float64 and score.dtype == asked
        torch.testing.assert_close(log_prob, torch.tensor([-4.25, -59.25], dtype=torch.float64))
    inside = FunctionTarget(lambda x: torch.where(x[..., 0] > 1, 0.0, -math.inf), dim=2)
    assert CountedTarget(inside).log_prob(x).dtype == torch.float64
    with pytest.raises(InputError, match=r"floating-point values, got dtype torch\.int64"):
        CountedTarget(FunctionTarget(lambda x: (x > 0).sum(-1), dim=2)).log_prob(x)


def test_constants_that_change_their_precision() -> None:
    class Own(Target):
        def __init__(self) -> None:
            super().__init__(2)
            self.register_buffer("matrix", torch.eye(2, dtype=torch.float32), persistent=False)

        def log_prob(self, x: Tensor) -> Tensor:
            return -(x @ self.matrix).square().sum(-1)

    target, x = Own(), torch.ones(3, 2, dtype=torch.float64)
    assert CountedTarget(target).log_prob(x).dtype == torch.float64
    assert torch.equal(CountedTarget(target.double()).log_prob(x), torch.full((3,), -2.0, dtype=torch.float64))


def test_a_failure_now_and_then_is_no_matter_of_dtype() -> None:
    calls = []

    def fragile(x: Tensor) -> Tensor:
        calls.append(x.dtype)
        if len(calls) == 1:
            raise RuntimeError("did not converge")
        return -(x**2).sum(-1)

    counted = CountedTarget(FunctionTarget(fragile, dim=2))
    with pytest.raises(RuntimeError, match="did not converge"):
        counted.log_prob(torch.zeros(3, 2, dtype=torch.float64))
    counted.log_prob(torch.zeros(3, 2, dtype=torch.float64))
    assert calls[-1] == torch.float64


def test_an_array_is_named() -> None:
    target = FunctionTarget(lambda x: -(x.numpy() ** 2).sum(-1), dim=2, differentiable=False)
    with pytest.raises(InputError, match="must return a tensor, got ndarray.*torch.as_tensor"):
        CountedTarget(target).log_prob(torch.zeros(3, 2))


def test_detached_functions_are_named() -> None:
    target = FunctionTarget(lambda x: -(x.detach() ** 2).sum(-1), dim=2)
    with pytest.raises(InputError, match=r"FunctionTarget\.log_prob is not differentiable"):
        Sampler(target, grid=2).sample(5, seed=0)
    # Without a score nothing is differentiated.
    assert Sampler(target, control=FourierMLP, grid=2).sample(5, seed=0).shape == (5, 2)


def test_bad_score_is_named() -> None:
    class Bad(Target):
        def log_prob(self, x: Tensor) -> Tensor:
            return -(x**2).sum(-1)

        def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.log_prob(x), -2 * x.sum(-1)

    with pytest.raises(InputError, match=r"Bad\.score.*shape"):
        Sampler(Bad(2), grid=2).sample(5, seed=0)


@pytest.mark.parametrize("dim", [0, -1, 2.0, "2"])
def test_refuses_bad_arguments(dim: object) -> None:
    with pytest.raises(InputError, match="dim"):
        FunctionTarget(lambda x: x.sum(-1), dim=dim)
    with pytest.raises(InputError, match="fn"):
        FunctionTarget(torch.zeros(3), dim=2)


def test_counts_points_and_invalid_values() -> None:
    values = torch.tensor([math.nan, math.inf, -math.inf, 1.0, 2.0])
    counted = CountedTarget(FunctionTarget(lambda x: values, dim=2))
    counted.log_prob(torch.zeros(5, 2))
    # A density of zero is a legitimate value.
    assert (counted.num_evaluations, counted.num_invalid) == (5, 2)
    counted.log_prob(torch.zeros(5, 2))
    assert (counted.num_evaluations, counted.num_invalid) == (10, 4)


def test_counts_lost_scores() -> None:
    # sqrt has an infinite slope at 0, and log(-1) no value at all.
    counted = CountedTarget(FunctionTarget(lambda x: x[..., 0].sqrt() + x[..., 1].log(), dim=2))
    counted.log_prob_and_score(torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, -1.0]]))
    assert (counted.num_evaluations, counted.num_invalid) == (3, 2)


def test_counts_every_axis() -> None:
    target = CountingTarget(correlated_gaussian())
    counted = CountedTarget(target)
    counted.log_prob_and_score(torch.zeros(4, 3, 2))
    counted.log_prob(torch.zeros(2))
    assert counted.num_evaluations == target.count == 13


@pytest.mark.parametrize(
    "log_prob",
    [
        lambda x: -sum((one - 1).square().sum() for one in x.reshape(2, 2)),
        lambda x: -(x[0] ** 2) - x[1:].square().sum(),
    ],
    ids=["another shape", "another count"],
)
def test_a_function_of_one_point_is_told_what_takes_it(log_prob: object) -> None:
    with pytest.raises(
        InputError, match=r"Of one point at a time it is FunctionTarget.from_energy\(lambda x: -log_prob"
    ):
        Sampler(FunctionTarget(log_prob, 4), grid=3).sample(5, return_log_weights=True)
    target = FunctionTarget.from_energy(lambda x: -log_prob(x), 4, batched=False)
    assert target.log_prob(torch.zeros(5, 4)).shape == (5,)
