"""What cannot work is refused in one sentence, before it has cost anything; what seems to work does."""

import copy
import io
import math
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from helpers import CountingTarget, by_name, correlated_gaussian, searched, two_modes
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from torch.distributions import Dirichlet, Gamma, HalfNormal, Independent, Normal, Uniform

from diffsampler import FunctionTarget, InputError, Sampler, Target, assess, fit
from diffsampler.baseline import reference
from diffsampler.behaviours import Exploration, OnPolicy, Replay
from diffsampler.coordinates import AffineCoordinates, LaplaceCoordinates
from diffsampler.losses import (
    DetailedBalance,
    LearnedDecomposition,
    LogVariance,
    PathwiseReverseKL,
    ScoreFunctionReverseKL,
    Stages,
    TrajectoryBalance,
)
from diffsampler.models import ModelTarget, real
from diffsampler.networks import FourierFlow, FourierMLP, LangevinControl
from diffsampler.priors import GaussianMixturePrior
from diffsampler.processes import AnnealedLangevin, Bridge
from diffsampler.training.data import TrajectoryCounts
from diffsampler.training.module import SamplerModule
from targets import Gaussian

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"steps_per_epoch": 5, "num_eval_samples": 40, "batch_size": 16, **QUIET}


def gaussian(x: Tensor) -> Tensor:
    """N(0.3, I), not normalised."""
    return -0.5 * (x - 0.3).square().sum(-1)


class Expensive(FunctionTarget):
    """A target that must not be asked."""

    def __init__(self) -> None:
        super().__init__(self.refuse, dim=2)

    def refuse(self, x: Tensor) -> Tensor:
        raise AssertionError("the target was evaluated")


# --- batches and budgets


@pytest.mark.parametrize(
    "loss",
    [LogVariance(), ScoreFunctionReverseKL(), Stages([TrajectoryBalance(), LogVariance()])],
    ids=lambda loss: type(loss).__name__,
)
def test_a_batch_of_one_teaches_some_losses_nothing(loss: object) -> None:
    with pytest.raises(InputError, match="batch_size must be at least 2 for loss .*, got 1"):
        fit(Sampler(Expensive(), grid=3), loss=loss, **{**SMALL, "batch_size": 1})


def test_a_batch_of_one_teaches_the_rest() -> None:
    sampler = Sampler(Gaussian([0.5, 0.0]), grid=3)
    fit(sampler, max_steps=2, loss=DetailedBalance(), **{**SMALL, "batch_size": 1})


BUDGETS = [
    ("with score", {"grid": 4}, None, None),
    ("without", {"grid": 4, "control": FourierMLP}, TrajectoryBalance(), None),
    ("flow", {"grid": 4, "control": FourierMLP}, DetailedBalance(), None),
    ("replay", {"grid": 4}, None, Replay(Exploration(), replays=2)),
    ("bridge", {"grid": 4, "process": partial(Bridge, sigma=1.0)}, None, None),
]


@pytest.mark.parametrize("case", BUDGETS, ids=by_name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_budget_is_kept(case: tuple, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    name, parts, loss, behaviour = case
    budget = 3001 if name == "without" else 6003
    target = CountingTarget(correlated_gaussian())
    sampler = Sampler(target, **copy.deepcopy(parts))
    options = {**SMALL, "loss": copy.deepcopy(loss), "behaviour": copy.deepcopy(behaviour)}
    history = fit(sampler, max_steps=10_000, max_target_evaluations=budget, **options)
    assert sampler.num_target_evaluations <= budget and target.count == sampler.num_target_evaluations
    # A step and a validation more would not have fitted.
    assert sampler.num_target_evaluations > budget - 2 * (16 + 40) * 5 - 100
    assert history[-1]["num_target_evaluations"] == sampler.num_target_evaluations


@pytest.mark.parametrize("case", BUDGETS, ids=by_name)
def test_a_budget_that_is_too_small_is_refused(case: tuple) -> None:
    _, parts, loss, behaviour = copy.deepcopy(case)
    with pytest.raises(InputError, match=r"max_target_evaluations must be at least [\d,]+ here, got 10:") as refused:
        fit(Sampler(Expensive(), **parts), 9, 0, loss, behaviour, max_target_evaluations=10, **SMALL)
    smallest = int(str(refused.value).split("at least ")[1].split(" here")[0].replace(",", ""))
    sampler = Sampler(correlated_gaussian(), **copy.deepcopy(parts))
    fit(sampler, 9, 0, loss, behaviour, max_target_evaluations=smallest, **SMALL)
    assert sampler.num_target_evaluations <= smallest


@pytest.mark.parametrize("name", ["max_steps", "max_epochs", "limit_train_batches"])
def test_no_training_at_all_is_refused(name: str) -> None:
    trainer = L.Trainer(
        **{"max_steps": 3, "max_epochs": -1, name: 0}, logger=False, enable_checkpointing=False, **QUIET
    )
    with pytest.raises(InputError, match=f"trainer.{name} must be .*, got 0: nothing would"):
        trainer.fit(SamplerModule(Sampler(Expensive(), grid=3)), TrajectoryCounts(16, 5, 40))


# torch shows a module with data in several lines.
MODEL = ModelTarget(lambda p, data: -(p["mu"] - data["y"]).square(), {"mu": real()}, {"y": [1.0]})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(Sampler(Gaussian([0.0])), tolerence=0.1), "no argument 'tolerence': did you mean tolerance"),
        (lambda: fit(Sampler(Gaussian([0.0])), max_step=3), "did you mean max_steps"),
        (
            lambda: Sampler(Gaussian([0.0, 0.0]), control=FourierMLP(3)),
            "control FourierMLP must return shape (*, 2), or twice that with widths, for states of shape (*, 2)",
        ),
        (lambda: fit(Sampler(Gaussian([0.0])), zzz=3), "accepted are those of fit, of SamplerModule and of lightning"),
        (lambda: fit(Gaussian([0.0])), "sampler must be a Sampler, got a Target: write fit(Sampler(target))"),
        (lambda: fit(Sampler(Gaussian([0.0])), MODEL), "write fit(sampler, target=...)"),
        (lambda: fit(Sampler(Gaussian([0.0])), 20, 0, None, None, MODEL), "write fit(sampler, target=...)"),
        (lambda: Sampler.load(MODEL, "sampler.pt"), "write Sampler.load(path, target)"),
        (lambda: Sampler(Gaussian([0.0]), grid=MODEL), "got ModelTarget( (data): y (1,) )."),
        (lambda: Sampler(Gaussian([0.0]), process=MODEL), "got ModelTarget( (data): y (1,) )."),
        (lambda: assess(Gaussian([0.0])), "sampler must be a Sampler"),
        (lambda: reference(lambda x: -x.square().sum(-1)), "target must be a Target"),
    ],
)
def test_mistaken_arguments_are_named(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true", "16-true"])
def test_low_precision_is_refused_before_the_search(precision: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="trainer.precision must be 32-true or 64-true"):
            fit(Sampler(Expensive()), precision=precision, **SMALL)


def test_autocast_is_refused_before_the_search() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="torch.autocast must be off"):
        fit(Sampler(Expensive()), **SMALL)


# --- what a target says of itself


@pytest.mark.parametrize(
    "log_z", [math.nan, -math.inf, math.inf, "0.5", True, torch.zeros(2), torch.tensor(math.nan), 1j, [1.0]], ids=repr
)
def test_a_log_z_that_is_no_number_is_refused(log_z: object) -> None:
    with pytest.raises(InputError, match="log_z of FunctionTarget must be a finite number"):
        FunctionTarget(gaussian, dim=2, log_z=log_z)
    target = Gaussian([0.0, 1.0])
    target.log_z = log_z
    with pytest.raises(InputError, match="log_z of Gaussian must be a finite number"):
        Sampler(target, grid=3)


@pytest.mark.parametrize("log_z", [2, np.float32(2.0), np.int64(2), torch.tensor(2.0), torch.tensor([2])], ids=repr)
def test_a_log_z_of_another_type_becomes_a_float(log_z: object) -> None:
    target = Gaussian([0.0, 1.0])
    target.log_z = log_z
    assert type(Sampler(target, grid=3).target.log_z) is float and target.log_z == 2.0


def test_an_attribute_called_target_is_the_users_own() -> None:
    class Regression(Target):
        def __init__(self) -> None:
            super().__init__(2)
            self.target = torch.ones(5)

        def log_prob(self, x: Tensor) -> Tensor:
            return -x.square()

    with pytest.raises(InputError, match=r"Regression\.log_prob must return one value per point"):
        Sampler(Regression(), grid=3).sample(5, seed=0)


# --- seeds


class Part:
    """Parts whose initial weights are random."""

    MADE = [
        ("alone", lambda: {}, None),
        ("DGFS", lambda: {"grid": 3}, None),
        ("bridge", lambda: {"grid": 3, "process": partial(Bridge, sigma=1.0)}, None),
        (
            "mixture prior",
            lambda: {
                "grid": 3,
                "process": partial(AnnealedLangevin, sigma=0.5, prior=partial(GaussianMixturePrior, num_components=3)),
            },
            None,
        ),
        ("own factory", lambda: {"grid": 3, "control": lambda dim: FourierMLP(dim, width=8)}, None),
        ("LED", lambda: {"grid": 3, "control": FourierMLP, "flow": FourierFlow}, LearnedDecomposition),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("case", Part.MADE, ids=by_name)
def test_the_seed_is_all_the_randomness_there_is(case: tuple) -> None:
    _, parts, loss = case
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        sampler = Sampler(Gaussian([0.5, -0.5]), **parts())
        expected = torch.randn(3, generator=torch.Generator().manual_seed(global_seed))
        assert torch.equal(torch.randn(3), expected), "making a sampler has drawn from the global generator"
        module = SamplerModule(sampler, None if loss is None else loss())
        fit(sampler, max_steps=2, seed=3, loss=None if loss is None else module.loss, tolerance=0, **SMALL)
        results.append({**module.state_dict(), "draws": sampler.sample(5, seed=0)})
    first, second = results
    for name, value in first.items():
        assert not isinstance(value, Tensor) or torch.equal(value, second[name]), name


def test_ready_networks_keep_their_weights() -> None:
    torch.manual_seed(5)
    control = FourierMLP(2)
    before = copy.deepcopy(control.state_dict())
    sampler = Sampler(Gaussian([0.5, -0.5]), control=control, grid=3)
    assert all(torch.equal(value, before[name]) for name, value in sampler.policy.control.state_dict().items())


# --- where it is called


def test_fit_inside_inference_mode_and_no_grad() -> None:
    samplers = [Sampler(Gaussian([0.5, -0.5]), grid=3) for _ in range(3)]
    for sampler, context in zip(samplers, (torch.enable_grad, torch.no_grad, torch.inference_mode), strict=True):
        with context():
            fit(sampler, max_steps=3, **SMALL)
    expected = samplers[0].sample(5, seed=0)
    assert all(torch.equal(sampler.sample(5, seed=0), expected) for sampler in samplers)
    with torch.inference_mode():
        assert assess(Sampler(Gaussian([0.5, -0.5]), grid=3), num_samples=100).estimate.num_samples == 100
        with pytest.raises(InputError, match=r"made inside torch\.inference_mode\(\)"):
            fit(Sampler(Gaussian([0.5, -0.5]), grid=3), max_steps=3, **SMALL)


VALIDATING = [
    ("Dirichlet", lambda x: Dirichlet(torch.ones(3)).log_prob(x)),
    ("Uniform", lambda x: Uniform(0.0, 1.0).log_prob(x).sum(-1) - x.square().sum(-1)),
    ("HalfNormal", lambda x: HalfNormal(1.0).log_prob(x).sum(-1)),
    ("Gamma", lambda x: Gamma(2.0, 1.0).log_prob(x).sum(-1)),
    ("Independent", lambda x: Independent(HalfNormal(torch.ones(3)), 1).log_prob(x)),
    ("Normal", lambda x: Normal(0.0, x[..., 0]).log_prob(x[..., 1]) - x[..., 2] ** 2),
]


@pytest.mark.parametrize("case", VALIDATING, ids=by_name)
@pytest.mark.parametrize("use", ["search", "sample", "score", "fit", "laplace"])
def test_a_distribution_that_validates_its_argument_is_named(case: tuple, use: str) -> None:
    target = FunctionTarget(case[1], dim=3)
    way = "asks Dirichlet.*a simplex.*ModelTarget" if case[0] == "Dirichlet" else "raises.*validate_args=False.*-inf"
    with pytest.raises(InputError, match=rf"FunctionTarget\.log_prob {way}") as refused:
        if use == "search":
            fit(Sampler(target), max_steps=2, **SMALL)
        elif use == "laplace":
            LaplaceCoordinates(FunctionTarget(lambda x: case[1](x - 0.1), dim=3))
        else:
            sampler = Sampler(target, control=LangevinControl if use == "score" else FourierMLP, grid=3)
            fit(sampler, max_steps=2, **SMALL) if use == "fit" else sampler.sample(9, seed=0, return_log_weights=True)
    assert len(str(refused.value)) < 400 and "\n" not in str(refused.value)


def test_another_error_of_value_is_left_as_it_is() -> None:
    def log_prob(x: Tensor) -> Tensor:
        raise ValueError("the mesh has no element")

    with pytest.raises(ValueError, match="^the mesh has no element$"):
        Sampler(FunctionTarget(log_prob, dim=3), grid=3).sample(9, seed=0)


ARRAYS: list[Callable[[Tensor], Tensor]] = [
    lambda x: torch.as_tensor(-(x.numpy() ** 2).sum(-1)),
    lambda x: torch.as_tensor(-(np.asarray(x) ** 2).sum(-1)),
    lambda x: torch.as_tensor(-np.square(x).sum(-1)),
    lambda x: torch.from_numpy(-(np.from_dlpack(x) ** 2)).sum(-1),
]


@pytest.mark.parametrize("function", ARRAYS, ids=["numpy", "asarray", "ufunc", "dlpack"])
@pytest.mark.parametrize("parts", [{}, {"grid": 3}, {"coordinates": LaplaceCoordinates}], ids=["alone", "DGFS", "mode"])
def test_arrays_without_saying_so_are_named(function: Callable, parts: dict) -> None:
    with pytest.raises(InputError, match=r"FunctionTarget\.log_prob leaves torch.*differentiable=False"):
        fit(Sampler(FunctionTarget(function, dim=2), **parts), max_steps=2, **SMALL)
    target = FunctionTarget(function, dim=2, differentiable=False)
    fit(Sampler(target, control=FourierMLP, grid=3), max_steps=2, **SMALL)


@pytest.mark.parametrize("name", ["target", "policy", "coordinates"])
def test_parts_of_a_sampler_stay(name: str) -> None:
    sampler = Sampler(Gaussian([0.5, -0.5]), grid=3)
    others = {
        "target": Gaussian([1.0, 1.0]),
        "policy": Sampler(Gaussian([0.5, -0.5]), grid=3).policy,
        "coordinates": AffineCoordinates(torch.zeros(2), torch.eye(2)),
    }
    way = r"fit\(sampler, target=...\) for another target" if name == "target" else "make another Sampler"
    for made in (sampler, copy.copy(sampler), copy.deepcopy(sampler)):
        with pytest.raises(InputError, match=f"{name} stays as it was made: {way}"):
            setattr(made, name, others[name])
        with pytest.raises(InputError, match=f"{name} stays as it was made"):
            setattr(made, name, None)


# --- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def output_of(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> str:
    streams = stream(), stream()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", streams[0])
        patch.setattr(sys, "stdout", streams[1])
        patch.setattr("diffsampler.progress.SECONDS_BETWEEN_LINES", 0.0)
        call()
    return "".join(s.getvalue() for s in streams)


@pytest.mark.slow
def test_no_line_is_painted_over_outside_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {key: value for key, value in SMALL.items() if key != "enable_progress_bar"}

    def run(**more: object) -> None:
        sampler = Sampler(Gaussian([0.5, -0.5]), grid=None if searched.pop() else 3)
        fit(sampler, max_steps=12, tolerance=0, **options, **more)
        sampler.estimate_log_z(100, seed=0, batch_size=20, progress_bar=more.get("enable_progress_bar", True))

    searched = [True, False, False, False, True]
    plain = output_of(run, monkeypatch, io.StringIO)
    assert "\r" not in plain and "20 of 100 draws" in plain
    told = [int(percent) for percent in re.findall(r"^Search: (\d+) of 100 %$", plain, re.MULTILINE)]
    assert len(told) >= 5 and told == sorted(told) and any(30 < percent < 70 for percent in told), told
    lines = [line for line in plain.splitlines() if line.startswith("Step ")]
    assert lines[0].startswith("Step 5: elbo ") and lines[-1].startswith("Step 12: elbo ") and "log_z" in lines[0]
    assert output_of(lambda: run(enable_progress_bar=False), monkeypatch, io.StringIO) == ""
    for more in ({"enable_progress_bar": True}, {"callbacks": TQDMProgressBar(refresh_rate=1)}):
        assert "\r" in output_of(lambda more=more: run(**more), monkeypatch, io.StringIO)
    painted = output_of(run, monkeypatch, Terminal)
    assert "\r" in painted and "Step 5" not in painted


# --- scores by hand


class ForcesByHand(Target):
    """A Gaussian times a constant whose values carry no gradient."""

    def log_prob(self, x: Tensor) -> Tensor:
        return gaussian(x.detach())

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_prob(x), 0.3 - x.detach()


@pytest.mark.parametrize(
    "parts", [{"control": FourierMLP}, {}, {"control": FourierMLP, "process": partial(Bridge, sigma=1.0)}], ids=str
)
@pytest.mark.parametrize("sticking", [True, False])
def test_pathwise_gradients_by_a_score_of_the_targets_own(parts: dict, sticking: bool) -> None:
    gradients = []
    for target in (FunctionTarget(gaussian, dim=2), ForcesByHand(2)):
        sampler = Sampler(target, grid=4, **copy.deepcopy(parts))
        loss = PathwiseReverseKL(sticking).step(sampler.dynamics, OnPolicy(), 64, torch.Generator().manual_seed(0), 0.0)
        loss.backward()
        gradients.append({n: p.grad for n, p in sampler.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_second_derivatives_of_a_score_by_hand_are_refused() -> None:
    sampler = Sampler(ForcesByHand(2), process=partial(AnnealedLangevin, sigma=0.5), control=FourierMLP, grid=3)
    with pytest.raises(InputError, match=r"ForcesByHand\.log_prob carries no gradient"):
        fit(sampler, max_steps=2, loss=PathwiseReverseKL(), **SMALL)
    with pytest.raises(InputError, match=r"ForcesByHand\.log_prob carries no gradient"):
        sampler.estimate_log_z(20, method="ode")


def test_pathwise_gradients_of_a_function_without_are_refused() -> None:
    target = FunctionTarget(lambda x: torch.as_tensor(-(x.numpy() ** 2).sum(-1)), dim=2, differentiable=False)
    with pytest.raises(InputError, match="PathwiseReverseKL follows the target's score.*differentiable=False"):
        fit(Sampler(target, control=FourierMLP, grid=3), max_steps=2, loss=PathwiseReverseKL(), **SMALL)


# --- data that change


class Data(Target):
    """A Gaussian around the mean of data, which may be replaced."""

    def __init__(self, centre: float) -> None:
        super().__init__(2)
        self.centre = centre

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * (x - self.centre).square().sum(-1) / 0.25 + self.centre


@pytest.mark.slow
def test_a_search_of_other_data_is_made_anew() -> None:
    target = Data(1.0)
    sampler = Sampler(target)
    fit(sampler, max_steps=5, tolerance=0, **SMALL)
    cost, before = sampler.num_target_evaluations, sampler.reference
    assert not sampler.search_is_outdated()
    fit(sampler, max_steps=5, tolerance=0, **SMALL)
    assert sampler.reference is before and sampler.num_target_evaluations < cost + 5000
    target.centre = 5.0
    truth = math.log(2 * math.pi * 0.25) + 5
    with pytest.warns(UserWarning, match=r"Data\.log_prob gives other values than when it was searched"):
        assessment = assess(sampler, 500)
    assert assessment.reference is None and assessment.verdict.grade != "trustworthy"
    fit(sampler, max_steps=5, **SMALL)
    assert abs(sampler.reference.log_z - truth) < 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert assess(sampler, 500).reference is sampler.reference


@pytest.mark.slow
def test_what_a_search_remembers_is_in_checkpoints() -> None:
    sampler, again = searched(two_modes), Sampler(two_modes())
    again.load_state_dict(sampler.state_dict())
    assert not again.search_is_outdated()
    moved = Sampler(FunctionTarget(lambda x: two_modes().log_prob(x) + 0.01, dim=2))
    moved.load_state_dict(sampler.state_dict())
    assert moved.search_is_outdated()
    state = sampler.coordinates.get_extra_state()
    del state["log_prob_then"]  # as in older checkpoints
    moved.coordinates.set_extra_state(state)
    assert not moved.search_is_outdated() and moved.coordinates.is_found


class Lost(FourierMLP):
    """A control that is no number."""

    def forward(self, embedding, x, score=None):
        return super().forward(embedding, x) * math.nan


def test_a_control_that_is_no_number_is_not_blamed_on_the_target():
    sampler = Sampler(Gaussian([0.5, -1.0]), control=Lost, grid=4, flow=None)
    with pytest.raises(
        InputError, match="lost at step 1.*control, Lost, or the kernels of the process, PinnedBrownian"
    ):
        fit(sampler, max_steps=1, loss=TrajectoryBalance(), enable_progress_bar=False, accelerator="cpu")
