"""Search, learn, correct: what happens when nothing but the target is given."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import (
    PROCESSES,
    Z_BOUND,
    CountingTarget,
    ProcessCase,
    assert_mean,
    by_name,
    correlated_gaussian,
    random_sampler,
    searched,
    two_modes,
)

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.behaviours import ExpertSamples, Exploration, OnPolicy, Replay, SearchedPoints, Succession
from diffsampler.cli import main
from diffsampler.coordinates import SearchedCoordinates
from diffsampler.losses import LogVariance, MaximumLikelihood, Stages, SubTrajectoryBalance, TrajectoryBalance
from diffsampler.networks import FourierMLP, LangevinControl, LearnedVariance
from diffsampler.paths import evaluate, log_pf_of, rollout
from diffsampler.processes import VariancePreserving
from diffsampler.recipes import Dgfs, SearchLearnCorrect
from diffsampler.training.module import SamplerModule
from targets import Gaussian

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.mark.parametrize("case", PROCESSES, ids=by_name)
def test_single_transitions_are_those_of_the_batched_pass(case: ProcessCase, generator: torch.Generator) -> None:
    sampler = random_sampler(two_modes(), process=case.make(), control=LearnedVariance, grid=4)
    path = rollout(sampler.dynamics, 5, generator)
    step, row = torch.tensor([0, 3, 2, 2, 1]), torch.tensor([4, 0, 1, 2, 1])
    expected = evaluate(sampler.dynamics, path).log_pf[step, row]
    torch.testing.assert_close(log_pf_of(sampler.dynamics, path, step, row), expected)


@pytest.mark.slow
def test_likelihood_of_some_transitions_has_the_mean_of_all(generator: torch.Generator) -> None:
    sampler = random_sampler(two_modes(), process=VariancePreserving, control=LangevinControl, grid=6)
    # 400 values each, of fresh trajectories: the difference within 4.5 standard errors, 7e-6.
    some, every = (
        torch.stack([loss.step(sampler.dynamics, ExpertSamples(), 16, generator, 0.0).detach() for _ in range(400)])
        for loss in (MaximumLikelihood(64), MaximumLikelihood())
    )
    error = math.sqrt(float(some.var() + every.var()) / 400)
    assert abs(float(some.mean() - every.mean())) < Z_BOUND * error


def test_stages_change_loss_and_behaviour_together(generator: torch.Generator) -> None:
    seen: list[tuple[str, str, float]] = []

    def spy(name: str) -> object:
        class Spy(TrajectoryBalance):
            def step(self, dynamics: object, behaviour: object, n: int, generator: object, progress: float) -> object:
                seen.append((name, type(behaviour).__name__, round(progress, 6)))
                return super().step(dynamics, behaviour, n, generator, progress)

        return Spy()

    sampler = random_sampler(grid=3)
    loss = Stages([spy("first"), spy("second")])
    behaviour = Succession([OnPolicy(), Exploration()], [3.0, 1.0])
    loss.check(sampler.dynamics, behaviour)
    for progress in (0.0, 0.375, 0.75, 1.0):
        assert loss.step(sampler.dynamics, behaviour, 4, generator, progress).isfinite()
    assert seen == [
        ("first", "OnPolicy", 0.0),
        ("first", "OnPolicy", 0.5),
        ("second", "Exploration", 0.0),
        ("second", "Exploration", 1.0),
    ]
    # On one behaviour: stages of equal length.
    seen.clear()
    loss.step(sampler.dynamics, OnPolicy(), 4, generator, 0.6)
    assert seen == [("second", "OnPolicy", 0.2)]
    assert behaviour.paths(sampler.dynamics, 4, generator, 0.9).x.shape == (4, 4, 2)


def test_stages_and_successions_refuse() -> None:
    sampler = random_sampler(grid=3)
    with pytest.raises(InputError, match="losses must be 2, one for each behaviour of Succession, got 1"):
        Stages([TrajectoryBalance()]).check(sampler.dynamics, Succession([OnPolicy(), OnPolicy()]))
    with pytest.raises(InputError, match="MaximumLikelihood needs paths rolled back"):
        Stages([MaximumLikelihood(), LogVariance()]).check(sampler.dynamics, Succession([OnPolicy(), OnPolicy()]))
    with pytest.raises(InputError, match="at least one loss"):
        Stages([])
    with pytest.raises(InputError, match="shares must be 1 numbers"):
        Succession([OnPolicy()], [1.0, 2.0])
    with pytest.raises(InputError, match="SearchedPoints needs coordinates=SearchedCoordinates"):
        SearchedPoints().check(sampler.dynamics)
    with pytest.raises(InputError, match="search is for a sampler with coordinates=SearchedCoordinates"):
        sampler.search()
    automatic = Sampler(correlated_gaussian())
    with pytest.raises(InputError, match="no points yet"):
        SearchedPoints().paths(automatic.dynamics, 3, torch.Generator(), 0.0)
    succession = Succession([Replay(), OnPolicy()])
    succession.load_state_dict(succession.state_dict())


@pytest.mark.slow
def test_search_whitens_and_leaves_log_z_alone(generator: torch.Generator) -> None:
    target = Gaussian([1000.0, -3.0], [[1e-4, 0.0], [0.0, 900.0]])
    sampler = Sampler(CountingTarget(target))
    assert not sampler.coordinates.is_found
    found = sampler.search(seed=1)
    assert sampler.coordinates.is_found and sampler.reference is found.estimate
    assert sampler.num_target_evaluations == sampler.target.count > found.estimate.num_target_evaluations
    z = sampler.coordinates.inverse(target.sample(10_000, generator))
    # A mean and a covariance of 10000 draws of chains: a tenth is ten standard errors of independent ones.
    assert z.mean(0).abs().max() < 0.1 and (torch.cov(z.T) - torch.eye(2)).abs().max() < 0.1
    weight = sampler.weighted_draws(4_000, generator)[1].exp()
    assert_mean(weight, 1.0, "E[w] in the coordinates found")
    # In float32 too: the target is evaluated in float64 however far it is.
    walked = sampler.density
    exact, rounded = walked.log_prob(z[:50]), walked.log_prob(z[:50].float())
    assert rounded.dtype == torch.float64
    torch.testing.assert_close(exact, rounded, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_what_the_search_found_is_part_of_the_state() -> None:
    sampler, other = searched(two_modes), Sampler(two_modes())
    other.load_state_dict(sampler.state_dict())
    assert other.reference.to_dict() == sampler.reference.to_dict() and other.search_cost == sampler.search_cost > 0
    assert torch.equal(other.coordinates.points, sampler.coordinates.points)


def test_a_target_alone_is_searched_and_learned(tmp_path: Path) -> None:
    target = CountingTarget(two_modes())
    sampler = Sampler(target)
    options = {"batch_size": 32, "lr": 5e-3, "steps_per_epoch": 20, "num_eval_samples": 500, **QUIET}
    history = fit(sampler, max_steps=40, tolerance=0, **options)
    assert sampler.num_target_evaluations == target.count
    assert len(history) == 2 and sampler.reference is not None
    estimate = sampler.estimate_log_z(4000, seed=1)
    # 4.5 standard errors, 7e-6; the untrained sampler of whitened coordinates has an ESS below a fifth.
    assert abs(estimate.log_z) < Z_BOUND * (estimate.high - estimate.low) / 3.92 < 0.3 and estimate.ess > 0.4, estimate


@pytest.mark.slow
def test_no_gradient_is_asked_of_a_target_that_has_none() -> None:
    target = FunctionTarget(
        lambda x: torch.as_tensor(-((x.detach().numpy() - 3.0) ** 2).sum(-1)),
        dim=2,
        log_z=math.log(math.pi),
        differentiable=False,
    )
    sampler = Sampler(target)
    fit(sampler, max_steps=20, tolerance=0, batch_size=64, steps_per_epoch=20, num_eval_samples=500, **QUIET)
    estimate = sampler.estimate_log_z(4000, seed=1)
    assert abs(estimate.log_z - target.log_z) < Z_BOUND * (estimate.high - estimate.low) / 3.92 < 0.3


@pytest.mark.slow
def test_who_gives_a_part_gets_dgfs_and_no_search() -> None:
    for parts in ({"process": VariancePreserving}, {"control": LangevinControl}, {"grid": 7}, {"flow": None}):
        sampler = Sampler(correlated_gaussian(), **parts)
        assert sampler.coordinates is None and isinstance(sampler.recipe, Dgfs)
    module = SamplerModule(Sampler(correlated_gaussian(), grid=7))
    assert isinstance(module.loss, SubTrajectoryBalance) and module.lr == 1e-3
    # What is not given is the recipe's, however a default is spelt.
    module = SamplerModule(Sampler(correlated_gaussian()), TrajectoryBalance())
    assert isinstance(module.loss, TrajectoryBalance) and isinstance(module.behaviour, Succession)
    assert module.lr == 3e-3 and module.tolerance == 0.05
    usual = SearchLearnCorrect().training()
    for given in ({"behaviour": usual.behaviour}, {"loss": usual.loss}, {"lr": usual.lr}):
        module = SamplerModule(Sampler(correlated_gaussian()), **given)
        assert isinstance(module.loss, Stages) and isinstance(module.behaviour, Succession)
        assert module.lr == 3e-3 and module.tolerance == 0.05
    with pytest.raises(InputError, match="MaximumLikelihood needs paths rolled back from points.*OnPolicy rolls out"):
        SamplerModule(Sampler(correlated_gaussian()), behaviour=OnPolicy())
    sampler = Sampler(correlated_gaussian(), process=VariancePreserving, coordinates=SearchedCoordinates, flow=None)
    fit(sampler, max_steps=2, loss=LogVariance(), batch_size=8, num_eval_samples=50, **QUIET)
    assert sampler.coordinates.is_found


def test_parameters_of_the_recipe_before_this_control_are_refused() -> None:
    # Of the same shapes, but they are another function.
    old = LearnedVariance(2, partial(FourierMLP, width=128), width=128)
    with pytest.raises(RuntimeError, match="narrow"):
        Sampler(two_modes()).policy.control.load_state_dict(old.state_dict())


def test_the_recipe_brings_its_learning_rate() -> None:
    assert SamplerModule(Sampler(correlated_gaussian())).lr == 3e-3
    assert SamplerModule(Sampler(correlated_gaussian()), lr=5e-4).lr == 5e-4


@pytest.mark.slow
def test_command_line_with_a_target_alone(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    small = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--report.figures=false"]
    small += ["--data.batch_size=64", "--data.steps_per_epoch=20", "--data.num_test_samples=1000"]
    small += ["--model.tolerance=0"]
    target = ["--model.target=Gaussian", "--model.target.mean=[500.0,-1.0]", "--model.target.covariance=[0.01,4.0]"]
    main(["fit", *target, *small, "--trainer.max_steps=20"])
    run = working_folder / "runs/Gaussian/version_0"
    results = json.loads((run / "results.json").read_text())
    assert abs(results["reference"]["log_z"]) < 0.2 and results["ess"] > 0.5
    capsys.readouterr()
    main(["test", f"--ckpt_path={run}/checkpoints/last.ckpt", *small])
    again = json.loads((run / "results.json").read_text())
    assert again["log_z"] == results["log_z"] and again["reference"] == results["reference"]
    assert "reference" in capsys.readouterr().out
    # A resumed run does not search again.
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", *small, "--trainer.max_steps=25"])
    later = json.loads((working_folder / "runs/Gaussian/version_1/results.json").read_text())
    assert later["num_target_evaluations"] < results["num_target_evaluations"] + 10_000


def test_a_budget_is_that_of_training_after_the_search() -> None:
    options = {"batch_size": 16, "steps_per_epoch": 5, "num_eval_samples": 50, **QUIET}
    target = CountingTarget(two_modes())
    sampler = Sampler(target)
    with pytest.raises(
        InputError, match=r"max_target_evaluations must be at least [\d,]+ for a target alone.*got 1,000"
    ):
        fit(sampler, max_steps=10, max_target_evaluations=1000, **options)
    assert target.count == 0, "refused before the search has cost anything"
    sampler = searched(two_modes)
    with pytest.raises(InputError, match="max_target_evaluations must be above the .* evaluations that the search"):
        fit(sampler, max_steps=10, max_target_evaluations=sampler.search_cost, **options)
    history = fit(sampler, max_steps=10, max_target_evaluations=2 * sampler.search_cost, tolerance=0, **options)
    assert history[-1]["step"] == 10


def test_a_score_is_not_asked_of_a_target_without() -> None:
    target = FunctionTarget(lambda x: -x.square().sum(-1), dim=2, differentiable=False)
    with pytest.raises(InputError, match="differentiable=False.*FourierMLP"):
        Sampler(target, control=LangevinControl)


def test_wrong_items_are_named() -> None:
    with pytest.raises(InputError, match="losses must be an Objective"):
        Stages([3])
    with pytest.raises(InputError, match="behaviours must be a Behaviour"):
        Succession([3, OnPolicy()])
