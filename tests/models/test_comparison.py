"""Models compared by their evidence."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsampler import InputError, assess, compare
from diffsampler.cli import main
from diffsampler.log_z import LogZEstimate, estimate_log_z
from diffsampler.sampler import Sampler
from targets import Gaussian


def estimate(log_z: float, half_width: float, high: float | None = None) -> LogZEstimate:
    high = log_z + half_width if high is None else high
    return LogZEstimate(log_z, log_z - half_width, high, log_z - 0.1, 0.9, 0.1, 10_000, 10_000)


def test_differences_have_intervals_in_quadrature() -> None:
    found = estimate(-3.0, 0.03) - estimate(-5.0, 0.04)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 1.95, 2.05))
    assert (-found).low == pytest.approx(-2.05) and str(found) == "2.0000 [1.9500, 2.0500]"
    with pytest.raises(TypeError):
        estimate(-3.0, 0.03) - 3.0


def test_each_half_width_is_the_other_ones_of_the_other() -> None:
    """What lets one estimate be higher, and the other lower, lets their difference be higher."""
    found = estimate(-3.0, 0.3, -2.6) - estimate(-5.0, 1.2, -4.5)  # half-widths 0.3 and 0.4, 1.2 and 0.5
    assert found.low == pytest.approx(2.0 - math.hypot(0.3, 0.5))
    assert found.high == pytest.approx(2.0 + math.hypot(0.4, 1.2))


def test_an_end_that_is_not_there_is_not_made_up() -> None:
    open_above = estimate(-3.0, 3.0, math.inf)
    found = open_above - estimate(-5.0, 0.04)
    assert found.high == math.inf and found.low == pytest.approx(-6.0 + 5.0 - 0.04)
    assert (estimate(-5.0, 0.04) - open_above).low == -math.inf
    # At least 0.96 nats ahead even at its lower end, hence more probable than 72 %.
    _, low, high = compare({"a": estimate(-3.0, 1.0, math.inf), "b": estimate(-5.0, 0.04)}).probability["a"]
    assert low == pytest.approx(1 / (1 + math.exp(-0.96))) and high == 1.0
    with pytest.raises(InputError, match="log Z of b"):
        compare({"a": estimate(-3.0, 1.0), "b": estimate(math.nan, 0.04)})


def test_probabilities_are_by_bayes_rule() -> None:
    found = compare({"a": estimate(-3.0, 0.02), "b": estimate(-4.0, 0.02), "c": estimate(-900.0, 0.02)})
    odds = math.exp(1)
    assert found.probability["a"][0] == pytest.approx(odds / (1 + odds)) and found.probability["c"][0] < 1e-300
    low, high = found.probability["a"][1:]
    # Of two models, a log odds of 1 +- 0.02 sqrt 2.
    assert (low, high) == pytest.approx([1 / (1 + math.exp(-1 + e)) for e in (0.0283, -0.0283)], abs=1e-5)
    assert list(found.log_z) == ["a", "b", "c"] and found.log_bayes_factor("b", "a").value == -1.0
    for given in ({"a": 1, "b": 3}, {"a": np.float32(1), "b": np.int64(3)}):
        prior = compare({"a": estimate(-3.0, 0.02), "b": estimate(-4.0, 0.02)}, prior=given)
        assert prior.probability["b"][0] == pytest.approx(3 / (3 + odds))
    assert json.loads(json.dumps(found.to_dict()))["best"] == "a"
    assert "a" in str(found) and "verdict" in str(found)


def test_a_comparison_has_a_figure(tmp_path: Path) -> None:
    found = compare({"a": estimate(-3.0, 0.5), "b": estimate(-4.0, 0.4), "c": estimate(-5.0, 1.0, math.inf)})
    found.plot().savefig(tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 5000


def test_intervals_of_probabilities_cover() -> None:
    """Of 2000 pairs of estimates with normal errors, 95 % of intervals hold the truth: 1900 +- 4.5 * 9.7, 7e-6."""
    generator, held = torch.Generator().manual_seed(0), 0
    errors = 0.3 * torch.randn(2000, 3, generator=generator)
    for error in errors.tolist():
        models = {name: estimate(z + e, 1.96 * 0.3) for name, z, e in zip("abc", (0.0, -0.5, -1.0), error, strict=True)}
        _, low, high = compare(models).probability["a"]
        held += low < 1 / (1 + math.exp(-0.5) + math.exp(-1.0)) < high
    assert abs(held - 1900) < 4.5 * math.sqrt(2000 * 0.95 * 0.05)


def test_a_verdict_is_no_better_than_the_worst() -> None:
    sampler = Sampler(Gaussian(mean=[1.0, -1.0]), grid=5)
    bad = assess(sampler, num_samples=200)
    good = estimate_log_z(torch.zeros(5000))
    assert bad - bad == bad.estimate - bad.estimate and -(good - bad) == bad - good == bad.estimate - good
    with pytest.raises(TypeError):
        bad - 3.0
    assert compare({"good": good, "bad": bad}).verdict.grade in ("doubtful", "not to be trusted")
    assert any(reason.startswith("bad: ") for reason in compare({"good": good, "bad": bad}).verdict.reasons)


@pytest.mark.parametrize(
    ("models", "prior", "message"),
    [
        ({"a": estimate(0, 1)}, None, "two or more"),
        ([estimate(0, 1), estimate(0, 1)], None, "two or more"),
        ({"a": estimate(0, 1), "b": 3.0}, None, "'b'.*float"),
        ({"a": estimate(0, 1), "b": estimate(0, 1)}, {"a": 1.0}, "prior must be of a, b"),
        ({"a": estimate(0, 1), "b": estimate(0, 1)}, {"a": 1.0, "b": 0.0}, "prior of b must be a number, positive"),
        ({"a": estimate(0, 1), "b": estimate(0, 1)}, {"a": 1.0, "b": math.inf}, "prior of b"),
        ({"a": estimate(0, 1), "b": estimate(0, 1)}, {"a": 1.0, "b": math.nan}, "prior of b"),
        ({"a": estimate(0, 1), "b": estimate(0, 1)}, {"a": 1.0, "b": True}, "prior of b must be a number.*got True"),
        ({"a": estimate(0, 1), "b": estimate(0, 1)}, {"a": 1.0, "b": np.True_}, "prior of b must be a number"),
        ({"a": estimate(0, 1), "b": estimate(0, 1)}, {"a": 1.0, "b": "1"}, "prior of b must be a number.*got '1'"),
        ({"a": estimate(0, 1), "b": estimate(0, 1)}, [0.5, 0.5], r'by its name, such as {"a": 0.5, "b": 0.5}, got \[0'),
    ],
)
def test_refuses_in_words(models: object, prior: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(models, prior)
    with pytest.raises(InputError, match="no model 'z'"):
        compare({"a": estimate(0, 1), "b": estimate(0, 1)}).log_bayes_factor("a", "z")


def run_of(folder: Path, log_z: float, high: float | None, grade: str = "trustworthy") -> str:
    folder.mkdir(parents=True)
    verdict = {"grade": grade, "reasons": ["good weights"], "next_steps": []}
    results = {"log_z": log_z, "low": log_z - 0.1, "high": high, "verdict": verdict}
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder)


def test_runs_are_compared_from_the_command_line(working_folder: Path, capsys: pytest.CaptureFixture) -> None:
    a, b = run_of(Path("runs/A/version_0"), -31.3, -31.2), run_of(Path("runs/B/version_0"), -30.8, None, "doubtful")
    main(["compare", a, b, "--prior=[1,3]", "--output=found.json", "--figure=found.png"])
    printed = capsys.readouterr().out
    assert "A/version_0" in printed and "verdict: doubtful" in printed
    found = json.loads(Path("found.json").read_text())
    odds = 3 * math.exp(0.5)
    assert found["best"] == "B/version_0" and Path("found.png").stat().st_size > 5000
    assert found["models"]["B/version_0"]["probability"]["value"] == pytest.approx(odds / (1 + odds))
    assert found["models"]["A/version_0"]["log_bayes_factor"]["low"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["A"], "two runs or more"),
        (["A", "nowhere"], "no results.json in 'nowhere'"),
        (["A", "A"], "the same run twice"),
        (["A", "broken"], "cannot be read"),
        (["A", "odd"], "cannot be read"),
        (["A", "reference"], "no log_z with a verdict"),
        (["A", "B", "--prior=[1]"], "2 numbers"),
    ],
)
def test_runs_that_cannot_be_compared(
    arguments: list[str], message: str, working_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    run_of(Path("A"), -31.3, -31.2)
    run_of(Path("B"), -31.3, -31.2)
    odd = '{"log_z": 1.0, "low": null, "high": 2.0, "verdict": {"grade": "good", "reasons": []}}'
    for name, text in (("broken", "{"), ("reference", '{"log_z": 1.0}'), ("odd", odd)):
        Path(name).mkdir()
        Path(name, "results.json").write_text(text)
    with pytest.raises(SystemExit) as caught:
        main(["compare", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
