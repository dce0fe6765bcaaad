"""Observables by name: of a target, of its kind of space, of a file; and in assessments and reports."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Sampler, Target, assess
from diffsampler.cli import main
from diffsampler.observables import (
    HeatCapacity,
    Histogram,
    estimate_observable,
    find_observables,
    magnetisation,
    observables_of,
    pair_distances,
)
from diffsampler.processes import PinnedBrownian
from diffsampler.spaces import Circle, Lattice, Links, Particles
from targets import Gaussian


def in_space(space: object) -> FunctionTarget:
    return FunctionTarget(lambda x: -0.5 * x.square().sum(-1), space.target_dim, space=space)


def test_of_particles_by_hand() -> None:
    space = Particles(3, 2)
    x = torch.tensor([[0.0, 0.0, 3.0, 4.0, 0.0, 1.0]])
    torch.testing.assert_close(pair_distances(x, space), torch.tensor([[5.0, 1.0, math.sqrt(18)]]))
    named = observables_of(in_space(space))
    assert named.keys() == {"energy", "heat_capacity", "pair_distances"}
    torch.testing.assert_close(named["energy"](x), torch.tensor([13.0]))


def test_pair_distances_know_neither_frame_nor_order(generator: torch.Generator) -> None:
    space = Particles(5, 3)
    x = torch.randn(20, 15, generator=generator)
    moved = space.image(x, generator) + 0.7
    torch.testing.assert_close(pair_distances(moved, space).sort(-1).values, pair_distances(x, space).sort(-1).values)


def test_of_lattices_by_hand() -> None:
    x = torch.tensor([[1.0, -2.0, 3.0, 0.0], [1.0, -1.0, -3.0, 1.0]])
    plain = Lattice((2, 2))
    torch.testing.assert_close(magnetisation(x, plain), torch.tensor([0.5, -0.5]))
    named = observables_of(in_space(plain))
    torch.testing.assert_close(named["absolute_magnetisation"](x), torch.tensor([0.5, 0.5]))
    # V (E[m^2] - E[|m|]^2) of two draws with |m| = 1/2 each, then with 1/2 and 0.
    assert float(estimate_observable("s", named["susceptibility"], x).value) == pytest.approx(0.0)
    x[1] = 0
    assert float(estimate_observable("s", named["susceptibility"], x).value) == pytest.approx(4 * (1 / 8 - 1 / 16))
    of_angles = magnetisation(x[:1], Lattice((2, 2), Circle(1)))
    torch.testing.assert_close(of_angles, torch.stack([x[0].cos().mean(), x[0].sin().mean()])[None])
    assert "magnetisation" not in observables_of(in_space(Links((2, 2))))


class Offers(Gaussian):
    """N(0, 4 I), with observables of its own."""

    def __init__(self) -> None:
        super().__init__([0.0, 0.0], 4.0)

    @property
    def observables(self) -> dict:
        return {"first": lambda x: x[:, 0], "both": lambda x: x.square()}

    @property
    def exact_observables(self) -> dict:
        return {"first": 0.0, "both": [4.0, 4.0]}


def exact_sampler(target: Target) -> Sampler:
    """Of N(0, 2^2), which the uncontrolled process ends in: every weight is Z."""
    target.log_prob_and_score = lambda x: (target.log_prob(x), torch.zeros_like(x))  # as without a score
    return Sampler(target, process=partial(PinnedBrownian, sigma=2.0), grid=5)


def test_assess_reports_what_a_target_offers_beside_the_truth() -> None:
    found = assess(exact_sampler(Offers()), 400)
    assert found.observables.keys() == {"first", "both"}
    assert float(found.observables["first"].standard_error) == pytest.approx(2 / math.sqrt(400), rel=0.2)
    lines = str(found).splitlines()
    assert any("both[1]" in line and "(exact 4.0" in line and ", z " in line for line in lines)
    assert not any("cannot be relied on" in line or "be relied on" in line for line in lines)
    # In the order of the table: they come before the verdict.
    assert str(found).index("observables, with standard errors") < str(found).index("verdict:")


def test_assess_says_nothing_of_observables_where_there_are_none() -> None:
    found = assess(exact_sampler(Gaussian([0.0, 0.0], 4.0)), 200)
    assert found.observables == {} and "observables" not in str(found)
    assert assess(exact_sampler(Offers()), 200, observables={}).observables == {}


def test_assess_reports_what_is_asked_for() -> None:
    sampler = exact_sampler(Offers())
    asked = assess(sampler, 400, observables={"wide": lambda x: x.repeat(1, 6)})
    assert asked.observables["wide"].value.shape == (12,) and "wide  " in str(asked)
    assert "12 numbers, not shown" in str(asked)
    named = assess(sampler, 4000, observables=["energy", "heat_capacity", "first"]).observables
    # Of a Gaussian in two dimensions: E - log Z of energies is 1, and so is the heat capacity.
    expected = 1 + math.log(2 * math.pi * 4)
    assert abs(float(named["energy"].value) - expected) < 4.5 * float(named["energy"].standard_error)
    assert abs(float(named["heat_capacity"].value) - 1) < 4.5 * float(named["heat_capacity"].standard_error)


def test_weights_that_are_too_heavy_are_said_to_be() -> None:
    sampler = Sampler(Gaussian([0.0], 400.0), process=partial(PinnedBrownian, sigma=0.3), grid=5)
    found = assess(sampler, 500, observables={"x": lambda x: x})
    assert found.estimate.khat > 0.7
    assert "above 0.7: neither these values nor their errors can be relied on" in str(found)


def test_an_observable_of_the_target_that_fails_leaves_the_rest() -> None:
    class Fails(Offers):
        @property
        def observables(self) -> dict:
            return {**super().observables, "bad": lambda x: x[:, 0].log()}

    sampler = exact_sampler(Fails())
    with pytest.warns(UserWarning, match="'bad' has failed, and the report goes without: .* NaN or infinite"):
        assert assess(sampler, 200).observables.keys() == {"first", "both"}
    with pytest.raises(InputError, match="observable 'bad' is NaN or infinite at"):
        assess(sampler, 200, observables=["bad"])


def test_exact_values_that_are_none_leave_the_rest() -> None:
    class Method(Offers):
        def exact_observables(self) -> dict:
            return {"first": 0.0}

    with pytest.warns(UserWarning, match=r"Method\.exact_observables: must be a dictionary"):
        assert assess(exact_sampler(Method()), 200).observables["first"].exact is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["energi"], "unknown name 'energi'. Accepted: first, both, energy, heat_capacity, or the dotted path"),
        ("energy", "a list of names, got 'energy'"),
        ([3], "a list of names"),
        ({"a": 3}, "functions by name, got 3 as 'a'"),
        (["math.pi"], "'math.pi' must be a function of x, got 3.14"),
        (["math.nothing"], "cannot use 'math.nothing': AttributeError"),
        (["no_such_file.f"], "cannot use 'no_such_file.f': ModuleNotFoundError"),
    ],
)
def test_names_that_are_none_are_refused_before_anything_is_drawn(asked: object, message: str) -> None:
    sampler = exact_sampler(Offers())
    with pytest.raises(InputError, match=message):
        assess(sampler, 100, observables=asked)
    assert sampler.num_target_evaluations == 0


@pytest.mark.parametrize(
    ("observable", "message"),
    [
        (lambda x: x.norm(), r"one row of numbers, a draw: shape \(33,\) or \(33, k\), got \(\) of torch.float32"),
        (lambda x: x[:10, 0], r"got \(10,\) of"),
        (lambda x: x.square().T, r"got \(2, 33\) of"),
        (lambda x: x[:, :, None] * x[:, None], r"got \(33, 2, 2\) of"),
        (lambda x: x.cfloat(), r"got \(33, 2\) of torch.complex64"),
        (lambda x: 1.0, "must return a tensor, got float"),
        (lambda x: x[:, 0].numpy(), "must return a tensor, got ndarray"),
        (lambda x: x[:, 5], r"raises IndexError for x of shape \(n, 2\), .* index 5 is out of bounds"),
        (lambda x: float(x[0] ** 2), r"raises \w+ for x of shape"),
        (HeatCapacity(lambda x: x.sum()), r"got \(\) of"),
        (Histogram(lambda x: x[:, 7]), "raises IndexError"),
    ],
)
def test_what_is_no_function_of_draws_is_refused_before_anything_is_drawn(observable: object, message: str) -> None:
    sampler = exact_sampler(Gaussian([0.0, 0.0], 4.0))
    with pytest.raises(InputError, match=f"observable 'r'.* {message}") as caught:
        assess(sampler, 100, observables={"r": observable})
    assert sampler.num_target_evaluations == 0 and "\n" not in str(caught.value)


def test_what_only_fails_at_made_up_points_is_no_reason_to_refuse() -> None:
    def factor(x: Tensor) -> Tensor:
        """Of a matrix that is positive definite near the origin only."""
        near = torch.diag_embed(30 - x.square())
        return torch.linalg.cholesky(near).diagonal(dim1=-2, dim2=-1).sum(-1)

    target = Gaussian([0.0, 0.0], 1e-2)
    offered = {
        "nan": lambda x: (x[:, 0] - 1e3).log(),
        "factor": factor,
        "single": lambda x: x @ torch.ones(2),
        "double": lambda x: x @ torch.ones(2, dtype=torch.float64),
        "is": lambda x: x[:, 0] > 0,
        "bins": Histogram(lambda x: (x - 1e3).log()),
    }
    assert find_observables(target, offered, tried=True) == offered
    assert list(find_observables(target, ["energy", "heat_capacity"], tried=True)) == ["energy", "heat_capacity"]


def test_names_of_the_target_come_first() -> None:
    class Own(Gaussian):
        @property
        def observables(self) -> dict:
            return {"energy": magic}

    def magic(x: Tensor) -> Tensor:
        return x[:, 0]

    assert find_observables(Own([0.0]), ["energy"]) == {"energy": magic}
    assert list(find_observables(Gaussian([0.0]))) == []


MINE = """
import torch
from diffsampler import Target
from diffsampler.spaces import Lattice


class Field(Target):
    def __init__(self):
        super().__init__(4)
        self.space = Lattice((2, 2))

    def log_prob(self, x):
        return -0.5 * x.square().sum(-1)

    def sample(self, n, generator=None):
        return torch.randn(n, 4, generator=generator)

    @property
    def observables(self):
        return {"second": lambda x: x.square().mean(-1)}

    @property
    def exact_observables(self):
        return {"second": 1.0}


def sign(x):
    return x[:, 0].sign()
"""
SMALL = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
SMALL += ["--data.steps_per_epoch=2", "--data.batch_size=8", "--data.num_eval_samples=50", "--model.grid=4"]
SMALL += ["--data.num_test_samples=300"]


def test_the_command_line_writes_them(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    (working_folder / "fields.py").write_text(MINE)
    fit = ["fit", "--model.target=fields.Field", *SMALL]
    main([*fit, "--report.observables=[second,energy,magnetisation,fields.sign]"])
    run = Path("runs/Field/version_0")
    results = json.loads((run / "results.json").read_text())
    assert results["observables"].keys() == {"second", "energy", "magnetisation", "fields.sign"}
    second = results["observables"]["second"]
    assert second["exact"] == 1.0 and second["error"] == pytest.approx(second["value"] - 1)
    assert second["z_score"] == pytest.approx(second["error"] / second["standard_error"])
    assert results["distances"]["energy_wasserstein2"].keys() == {"value", "weighted", "floor", "num_draws"}
    # 2 steps of 8 trajectories, checks, validation and test, at 4 states each.
    assert results["num_network_evaluations"] >= 4 * (2 * 8 + 50 + 300) and results["num_network_evaluations"] % 4 == 0
    said = capsys.readouterr().out
    assert "fields.sign" in said and "energy wasserstein2: " in said and "network evaluations" in said
    assert {"energies.png", "observables.png"} <= {path.name for path in run.iterdir()}
    # Without the option: what the target offers; a checkpoint knows what networks were asked.
    last = run / "checkpoints" / "last.ckpt"
    main(["test", f"--ckpt_path={last}", "--report.figures=false", "--report.observables=null"])
    tested = json.loads((run / "test" / "results.json").read_text())
    assert tested["observables"].keys() == {"second"}
    assert tested["num_network_evaluations"] == results["num_network_evaluations"]


def test_the_command_line_refuses_unknown_names_first(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    (working_folder / "fields.py").write_text(MINE)
    for given, message in (
        ("[sekond]", "unknown name 'sekond'. Accepted: second, energy, heat_capacity, magnetisation"),
        ("[fields.nothing]", "cannot use 'fields.nothing'"),
        ("3", "report.observables: expected a list of str"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--model.target=fields.Field", *SMALL, f"--report.observables={given}"])
        assert stop.value.code == 2 and message in capsys.readouterr().err
        assert not list(working_folder.rglob("*.ckpt"))
