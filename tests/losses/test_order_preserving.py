"""Learning from comparisons: cross-entropies by hand, what hard labels cannot see, where Bradley-Terry ones lead."""

import itertools
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import correlated_gaussian, seeded
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, fit
from diffsampler.behaviours import OnPolicy, Replay
from diffsampler.cli import main
from diffsampler.coordinates import AffineCoordinates, SupportCoordinates
from diffsampler.losses import (
    Alternatives,
    BradleyTerryLabels,
    HardLabels,
    Labels,
    LogVariance,
    OrderPreserving,
    ParetoLabels,
    Preferences,
)
from diffsampler.networks import FourierMLP
from diffsampler.paths import evaluate
from diffsampler.processes import PinnedBrownian, VariancePreserving
from examples.benchmarks import order_preserving
from targets import Gaussian

PRESETS = Path(__file__).parents[2] / "examples" / "presets"
SMALL = {"control": partial(FourierMLP, width=16, depth=1), "flow": None, "grid": 6}


def points_of(log_prob: list[float], x: Tensor | None = None) -> Alternatives:
    x = torch.arange(len(log_prob), dtype=torch.float64).unsqueeze(-1) if x is None else x
    return Alternatives(x, lambda _: torch.tensor(log_prob, dtype=torch.float64))


def test_pairs_are_compared_once_each_by_the_cross_entropy_of_two(generator: torch.Generator) -> None:
    log_prob = [0.3, -1.0, math.nan, 0.3, -math.inf]  # no number is zero density
    log_density = torch.randn(5, generator=generator, dtype=torch.float64)
    expected = 0.0
    for i, j in itertools.combinations(range(5), 2):
        a, b = (value if value > -math.inf else -math.inf for value in (log_prob[i], log_prob[j]))
        label = torch.tensor([1.0, 0.0] if a > b else [0.0, 1.0] if b > a else [0.5, 0.5], dtype=torch.float64)
        expected -= (label * log_density[[i, j]].log_softmax(0)).sum() / 10
    # Of five points each has two rivals in one direction, ten pairs: all there are.
    loss = HardLabels(rivals=100).cross_entropy(log_density, points_of(log_prob), generator)
    torch.testing.assert_close(loss, expected)


def test_bradley_terry_draws_as_often_as_densities_say(generator: torch.Generator) -> None:
    n = 20_000
    pairs, first, second = [1.0, 0.0, -math.inf, -math.inf], torch.zeros(n).long(), torch.ones(n).long()
    labels, points = BradleyTerryLabels(), points_of(pairs)
    share = labels.preference(points, first, second, generator).mean()
    # Standard error 0.0031; five of them are a false alarm of 6e-7.
    assert abs(share - 1 / (1 + math.exp(-1))) < 0.016
    assert abs(labels.preference(points, first + 2, second + 2, generator).mean() - 0.5) < 0.018
    assert (labels.preference(points, first, second + 1, generator) == 1).all()  # than zero density


def test_pareto_labels_are_alike_on_what_nothing_is_better_than(generator: torch.Generator) -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.5, 0.5], [1.0, 0.0], [math.nan, 0.9]])
    best = torch.tensor([True, True, False, True, True, False])
    x, log_density = torch.zeros(6, 2), torch.randn(6, generator=generator)
    expected = -log_density.log_softmax(0)[best].mean()
    by_function = ParetoLabels(lambda x: values)
    assert torch.equal(by_function.non_dominated(x), best)
    torch.testing.assert_close(by_function.cross_entropy(log_density, points_of([0.0] * 6, x), generator), expected)
    near, far = Gaussian([0.0, 0.0]), Gaussian([2.0, 0.0])
    between = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.5]])
    assert ParetoLabels([near, far]).non_dominated(between).tolist() == [False, True, True, True, False]


def rising(log_prob: Tensor) -> Tensor:
    """Another log-density of the same order: neither a constant nor a power apart from the first."""
    return torch.where(log_prob < -3, 0.25 * log_prob - 100, log_prob.exp() + log_prob)


def trained(change: Callable[[Tensor], Tensor], labels: Labels, behaviour: Callable) -> Sampler:
    gaussian = correlated_gaussian()
    # Zero density on a half-plane, which any increasing transform of R leaves at the bottom.
    target = FunctionTarget(lambda x: torch.where(x[..., 0] > 2.5, -math.inf, change(gaussian.log_prob(x))), 2)
    sampler = Sampler(target, process=partial(PinnedBrownian, sigma=2.0), **SMALL)
    options = {"steps_per_epoch": 5, "num_eval_samples": 64, "enable_progress_bar": False, "accelerator": "cpu"}
    fit(sampler, max_steps=15, seed=3, loss=OrderPreserving(labels), behaviour=behaviour(), batch_size=32, **options)
    return sampler


@pytest.mark.parametrize("behaviour", [OnPolicy, Replay])
def test_hard_labels_give_the_same_run_under_any_increasing_transform(behaviour: Callable) -> None:
    changes = [lambda log_prob: log_prob, rising, lambda log_prob: 1e3 * log_prob]
    plain, *others = (trained(change, HardLabels(), behaviour) for change in changes)
    for other in others:
        for (name, a), b in zip(plain.state_dict().items(), other.state_dict().values(), strict=True):
            # That log Z is a first guess from weights, which the loss neither reads nor trains.
            assert name == "policy.log_z" or torch.equal(a, b), name
        assert torch.equal(plain.sample(100, seed=0), other.sample(100, seed=0))
    # Labels that read R are not blind to it.
    a, b = (trained(change, BradleyTerryLabels(), behaviour).sample(100, seed=0) for change in changes[:2])
    assert not torch.equal(a, b)


def test_preferences_of_a_person_are_hard_labels_and_no_target_is_asked() -> None:
    gaussian, asked = correlated_gaussian(), []

    def nothing(x: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.zeros_like(x[..., 0])

    def compare(x: Tensor, y: Tensor) -> Tensor:
        return gaussian.log_prob(x) > gaussian.log_prob(y)

    losses, gradients = [], []
    for target, labels in ((gaussian, HardLabels(3)), (FunctionTarget(nothing, 2), Preferences(compare, 3))):
        sampler = Sampler(target, process=PinnedBrownian, **SMALL)
        loss = OrderPreserving(labels)
        asked.clear()
        value = loss.step(sampler.dynamics, OnPolicy(), 16, seeded(0), 0.0)
        losses.append(value.detach())
        parameters = list(sampler.policy.control.parameters())
        gradients.append(torch.autograd.grad(value, parameters))
    assert torch.equal(*losses) and all(map(torch.equal, *gradients)) and not asked
    for wrong in (lambda x, y: torch.ones(3), lambda x, y: 2 * torch.ones(len(x))):
        with pytest.raises(InputError, match=r"compare must return \d+ numbers between 0 and 1"):
            OrderPreserving(Preferences(wrong)).step(sampler.dynamics, OnPolicy(), 16, seeded(0), 0.0)


class Recorded(Labels):
    """Labels that keep what they are shown."""

    def cross_entropy(self, log_density: Tensor, points: Alternatives, generator: torch.Generator) -> Tensor:
        self.log_density, self.points = log_density, points
        return log_density.mean()


@pytest.mark.parametrize("support", [None, (-4.0, 4.0)])
def test_points_and_densities_are_in_the_targets_coordinates(support: tuple | None) -> None:
    gaussian = correlated_gaussian()
    target = FunctionTarget(gaussian.log_prob, 2, support=support)
    coordinates = (
        SupportCoordinates
        if support
        else AffineCoordinates(torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 0.0], [0.3, 2.0]]))
    )
    sampler, labels = Sampler(target, VariancePreserving, coordinates=coordinates, **SMALL), Recorded()
    OrderPreserving(labels).step(sampler.dynamics, OnPolicy(), 8, seeded(1), 0.0)
    path = OnPolicy().paths(sampler.dynamics, 8, seeded(1), 0.0)
    x, log_det = sampler.coordinates(path.x[-1])
    torch.testing.assert_close(labels.points.x, x)
    torch.testing.assert_close(labels.points.log_prob, gaussian.log_prob(x).double())
    # log w = log R - log R^, wherever R is looked at.
    weight = evaluate(sampler.dynamics, path).log_weight
    torch.testing.assert_close(gaussian.log_prob(x) - labels.log_density.detach(), weight.detach())


def test_says_what_it_cannot_learn_from() -> None:
    loss = OrderPreserving()
    with pytest.raises(InputError, match=r"comparisons alone.*score.*control=FourierMLP"):
        fit(Sampler(correlated_gaussian(), PinnedBrownian, grid=4), loss=loss)
    with pytest.raises(InputError, match="batch_size must be at least 2 for loss OrderPreserving"):
        fit(Sampler(correlated_gaussian(), PinnedBrownian, **SMALL), loss=loss, batch_size=1)
    with pytest.raises(InputError, match="labels must be"):
        OrderPreserving("hard")
    with pytest.raises(InputError, match="at least two targets"):
        ParetoLabels([correlated_gaussian()])
    with pytest.raises(InputError, match=r"objectives must return a tensor with shape \(8, K\)"):
        ParetoLabels(lambda x: x[:, 0]).non_dominated(torch.zeros(8, 2))


def test_the_optimum_of_bradley_terry_labels_is_that_of_log_variance() -> None:
    """On an exact sampler the gradient vanishes in the mean; off it, its mean leads back."""
    process = PinnedBrownian(2, 1.0)
    target = FunctionTarget(lambda x: process.log_reference(torch.ones(()), x) + 0.7, 2)
    sampler = Sampler(target, process, FourierMLP, flow=None, grid=4)
    assert LogVariance().step(sampler.dynamics, OnPolicy(), 64, seeded(0), 0.0) < 1e-8
    loss = OrderPreserving(BradleyTerryLabels(4))
    bias = list(sampler.policy.control.parameters())[-1]
    gradients = []
    for seed in range(200):
        value = loss.step(sampler.dynamics, OnPolicy(), 64, seeded(seed), 0.0)
        gradients.append(torch.autograd.grad(value, bias)[0])
    gradients = torch.stack(gradients)
    error = gradients.std(0) / len(gradients) ** 0.5
    # Two means within five standard errors of 0: a false alarm of 1e-6.
    assert (gradients.mean(0).abs() < 5 * error).all() and (error > 0).all()


def test_labels_from_the_command_line(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    function = "def compare(x: Tensor, y: Tensor) -> Tensor:\n    return x[:, 0] < y[:, 0]\n"
    (working_folder / "preferred.py").write_text(f"from torch import Tensor\n\n\n{function}")
    objectives = {"class_path": "Gaussian", "init_args": {"mean": [0.0, 0.0]}}
    labels = {"class_path": "ParetoLabels", "init_args": {"objectives": [objectives, objectives]}}
    loss = {"class_path": "OrderPreserving", "init_args": {"labels": labels}}
    (working_folder / "pareto.yaml").write_text(json.dumps({"model": {"loss": loss}}))
    common = ["fit", "--config", str(PRESETS / "order_preserving.yaml"), "--model.target=GaussianMixture9"]
    small = ["--model.grid=2", "--trainer.max_steps=1", "--trainer.accelerator=cpu", "--report.figures=false"]
    small += ["--data.batch_size=8", "--data.num_eval_samples=20", "--data.num_test_samples=20"]
    of_pairs = ["--model.loss.labels=Preferences", "--model.loss.labels.compare=preferred.compare"]
    for given in (["--config", "pareto.yaml"], of_pairs):
        main([*common, *small, *given])
        assert "log Z" in capsys.readouterr().out


@pytest.mark.slow
def test_bradley_terry_labels_lead_to_the_density() -> None:
    torch.set_default_dtype(torch.float32)
    run, seed = order_preserving.Run("Bradley-Terry", 0, max_steps=1000, batch_size=256, rivals=127), 0
    sampler = order_preserving.make_sampler()
    order_preserving.train(sampler, run)
    found = order_preserving.measure(sampler, seed)
    # Of 20 000 draws a mode's share has a relative standard error of 0.02: seven of them.
    assert 0.85 < found["min_mode_mass_ratio"] and found["max_mode_mass_ratio"] < 1.15, found
    assert found["correlation"] > 0.95 and found["correlation_by_paths"] > 0.95, found
    estimate = sampler.estimate_log_z(20_000, seed=seed)
    # Weights are exact whatever was trained: four standard errors, 6e-5.
    assert estimate.ess > 0.5 and abs(estimate.log_z) < 4 * ((1 / estimate.ess - 1) / 20_000) ** 0.5, estimate
