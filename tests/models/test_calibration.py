"""Simulation-based calibration: what it accepts, what it finds out, and what it keeps."""

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch.distributions import LKJCholesky, MultivariateNormal, Normal, Poisson

from diffsampler import InputError, Sampler, calibrate, fit
from diffsampler.behaviours import Replay
from diffsampler.calibration import Calibration
from diffsampler.calibration.result import OneFit
from diffsampler.calibration.uniform import band, p_value
from diffsampler.losses import TrajectoryBalance
from diffsampler.models import ModelTarget

FIT = "diffsampler.calibration.warm_starts.fit"
PRIOR = {"mu": Normal(0.0, 2.0)}
SHORT = {"max_steps": 20, "num_samples": 2000, "accelerator": "cpu", "progress_bar": False}
QUICK = {**SHORT, "num_draws": 9, "num_samples": 90}


def five_numbers(p: dict) -> Normal:
    """Of mean mu and width 1."""
    return Normal(p["mu"][:, None].expand(-1, 5), 1.0)


def evidence(y: torch.Tensor) -> float:
    """Of five numbers: they are normal with covariance I + 4."""
    covariance = torch.eye(5).double() + 4.0
    return float(MultivariateNormal(torch.zeros(5).double(), covariance).log_prob(y))


class Narrower(Normal):
    """A bug: what is drawn is twice as wide as its density."""

    def sample(self, shape: tuple[int, ...] = ()) -> torch.Tensor:
        return self.loc + 2 * (super().sample(shape) - self.loc)


class Backwards(Normal):
    """The same numbers, in another order."""

    def sample(self, shape: tuple[int, ...] = ()) -> torch.Tensor:
        return super().sample(shape).flip(-1)


def test_bands_hold_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    points, low, high = band(60, 99, 0.99)
    below = generator.multinomial(60, np.full(100, 0.01), 4000).cumsum(-1)[:, :-1] / 60
    outside = int(((below < low - 1e-9) | (below > high + 1e-9)).any(-1).sum())
    # 1 % of 4000 at most, and not much less: 40, binomial; the quantile of 20 000 has an error of a tenth of it.
    assert binom.ppf(1e-5, 4000, 0.006) <= outside <= binom.ppf(1 - 1e-5, 4000, 0.012), outside
    assert points.shape == low.shape == high.shape == (99,) and (low <= points).all() and (points <= high).all()


def test_p_values_know_uniform_ranks_from_others() -> None:
    generator = np.random.default_rng(2)
    found = np.array([p_value(generator.integers(0, 100, 50), 99) for _ in range(300)])
    # P(p <= 0.1) is 0.1 at most: 30 of 300, and 53 with a chance of 1e-5.
    assert (found <= 0.1).sum() <= binom.ppf(1 - 1e-5, 300, 0.1) and found.min() > 1e-4
    too_narrow = np.rint(99 * generator.beta(0.4, 0.4, 200)).astype(int)
    assert p_value(too_narrow, 99) < 0.001
    assert p_value(np.rint(99 * generator.beta(2.0, 1.0, 200)).astype(int), 99) < 0.001


def killed_at(number: int, file: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    """A calibration that a fit of it has ended."""
    fits = iter([fit] * number)
    with monkeypatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr(FIT, lambda *args, **given: next(fits)(*args, **given))
        calibrate(five_numbers, PRIOR, n=number + 1, file=file, **options, **SHORT)


@pytest.mark.slow
def test_what_was_finished_is_kept_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "calibration.json"
    killed_at(1, file, monkeypatch, log_evidence=evidence)
    found = calibrate(five_numbers, PRIOR, n=2, log_evidence=evidence, file=file, **SHORT)
    assert list(found.ranks) == ["mu", "log-likelihood"] and found.is_exact and not found.failed
    assert all(0 <= rank <= 99 for ranks in found.ranks.values() for rank in ranks)
    assert "found anew" in found.fits[1].reused and not found.fits[0].reused
    # 4.4 standard errors have a chance of 1e-5.
    assert all(abs(one.error[0]) < 4.4 / 1.96 * max(one.error[2] - one.error[0], 1e-3) for one in found.fits)
    monkeypatch.setattr(FIT, lambda *_, **__: pytest.fail("a finished fit is made again"))
    again = calibrate(five_numbers, PRIOR, n=2, log_evidence=evidence, file=file, **SHORT)
    assert again.fits == found.fits
    assert "intervals hold the exact one in" in str(again) and json.dumps(again.to_dict())
    assert len(again.plot().axes) == 2
    with pytest.raises(InputError, match="is of another calibration"):
        calibrate(five_numbers, {"mu": Normal(0.0, 3.0)}, n=2, file=file, **SHORT)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model must return the distribution of the data.*got Tensor"):
        calibrate(lambda p: p["mu"], PRIOR, n=2, **SHORT)
    with pytest.raises(InputError, match=r"model fails at values of shapes mu \(1,\): KeyError: 'nu'"):
        calibrate(lambda p: Normal(p["nu"], 1.0), PRIOR, n=2, **SHORT)
    with pytest.raises(InputError, match="got Tensor"):
        calibrate(lambda p: {"y": p["mu"]}, PRIOR, n=2, **SHORT)
    with pytest.raises(
        InputError, match=r"no draws, at r -\d.* of the prior: invalid Poisson rate.*Does the prior allow"
    ):
        calibrate(lambda p: Poisson(p["r"][:, None].expand(-1, 5)), {"r": Normal(-9.0, 1.0)}, n=2, **SHORT)
    with pytest.raises(InputError, match="log_evidence must be a function"):
        calibrate(five_numbers, PRIOR, n=2, log_evidence=-3.0, **SHORT)
    with pytest.raises(InputError, match="leave target out"):
        calibrate(five_numbers, PRIOR, n=2, target=None, **SHORT)
    with pytest.raises(InputError, match="n must be a whole number of at least 2"):
        calibrate(five_numbers, PRIOR, n=1, **SHORT)
    with pytest.raises(InputError, match="fit has no argument 'max_step'"):
        calibrate(five_numbers, PRIOR, n=2, max_step=3, **SHORT)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match=r"other.json holds no calibration"):
        calibrate(five_numbers, PRIOR, n=2, file=tmp_path / "other.json", **SHORT)


def test_fits_that_fail_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> list:
        raise InputError("the density is zero everywhere.")

    monkeypatch.setattr(FIT, fails)
    with pytest.raises(InputError, match="All 3 fits failed; the first: the density is zero everywhere"):
        calibrate(five_numbers, PRIOR, n=3, **SHORT)


def quick_fit(sampler: Sampler, seed: int, target: ModelTarget | None = None, **_: object) -> list[dict]:
    """No search, no training: what is reused is said to be the first number of the data that the start was made for."""
    mark = next(sampler.policy.parameters()).data.flatten()
    reused = "" if target is None else f"that of {float(mark[0]):.6f}"
    if target is not None:
        sampler.move_to(target)
        sampler.coordinates.is_warm = True
    mark[0] = float(sampler.target.data.for_functions()[0])
    return [{"reused": reused, "log_z": None, "low": None, "high": None}]


class FailingOnce:
    """The evidence, but at one of the calls an error."""

    def __init__(self, call: int) -> None:
        self.left = call

    def __call__(self, y: torch.Tensor) -> float:
        self.left -= 1
        if self.left == 0:
            raise InputError("no evidence today.")
        return evidence(y)


@pytest.mark.parametrize("stops", [(3, 3, 4), (3, 4)], ids=["tried again alone", "with a new one"])
def test_a_fit_tried_again_leaves_the_next_what_it_begins_from(
    stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FIT, quick_fit)
    file, exact = tmp_path / "calibration.json", FailingOnce(2)
    found = [calibrate(five_numbers, PRIOR, n=n, log_evidence=exact, file=file, **QUICK) for n in stops]
    assert [list(one.failed) for one in found] == [[1], *([] for _ in stops[1:])]
    whole = calibrate(five_numbers, PRIOR, n=4, log_evidence=evidence, **QUICK)
    assert [one.reused for one in found[-1].fits][2:] == [one.reused for one in whole.fits][2:]
    assert found[-1].fits[2:] == whole.fits[2:] and len({one.reused for one in whole.fits}) == 4
    assert found[-1].fits[1].reused, "what is tried again begins from the latest start"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration.json", "calibration.json.start_3.pt"]


def test_a_start_that_is_gone_is_warned_of_until_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FIT, quick_fit)
    file, exact = tmp_path / "calibration.json", FailingOnce(2)
    calibrate(five_numbers, PRIOR, n=3, log_evidence=exact, file=file, **QUICK)
    (tmp_path / "calibration.json.start_2.pt").unlink()
    for n in (3, 4):  # what is tried again is none
        with pytest.warns(UserWarning, match="next fit of the calibration begins from nothing"):
            calibrate(five_numbers, PRIOR, n=n, log_evidence=exact, file=file, **QUICK)
    found = calibrate(five_numbers, PRIOR, n=5, log_evidence=exact, file=file, **QUICK)
    assert not found.failed and [bool(one.reused) for one in found.fits[3:]] == [False, True]


def one_fit(rank: int, num_quantities: int = 1) -> OneFit:
    ranks = {f"q{k}": rank for k in range(num_quantities)}
    return OneFit(ranks, (0.0, -0.1, 0.1), (0.0, -0.1, 0.1), 0.0, "trustworthy", 1, "")


def test_many_quantities_hide_nothing() -> None:
    assert not Calibration([one_fit(0, 300)] * 50, {}, 99, True).is_uniform
    fits = [one_fit(rank, 300) for rank in range(0, 100, 2)]
    assert Calibration(fits, {}, 99, True).is_uniform


def test_few_fits_are_said_to_tell_nothing() -> None:
    few, enough = (str(Calibration([one_fit(rank) for rank in range(n)], {}, 99, True)) for n in (5, 60))
    assert "5 data sets are too few to tell" in few and "too few" not in enough


def test_open_intervals_are_no_cover() -> None:
    open_one = replace(one_fit(3), error=(0.0, -3.0, math.inf))
    found = Calibration([one_fit(5), open_one], {}, 99, True)
    assert (found.num_covered, found.num_claimed) == (1, 1) and "1 of 1" in str(found) and "1 are open" in str(found)


@pytest.mark.slow
def test_numbers_that_never_vary_have_uniform_ranks() -> None:
    """Of a factor of correlations, some entries are 0 or 1 always."""

    def pairs(p: dict) -> MultivariateNormal:
        return MultivariateNormal(torch.zeros(2), scale_tril=p["L"])

    found = calibrate(pairs, {"L": LKJCholesky(2, 2.0)}, n=20, **SHORT)
    assert found.is_uniform and found.ranks["L[0, 0]"].std() > 10, str(found)


def test_another_model_is_another_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By name: the package has a function that is called like the module.
    module, file = importlib.import_module("diffsampler.calibration.calibrate"), tmp_path / "calibration.json"
    monkeypatch.setattr(module, "_judged", lambda *_: one_fit(3))
    monkeypatch.setattr(FIT, lambda *_, **__: [])
    calibrate(five_numbers, PRIOR, n=2, file=file, **SHORT)
    wider, backwards = (lambda p: Normal(five_numbers(p).loc, 1.5)), lambda p: Backwards(five_numbers(p).loc, 1.0)
    for model, more, what in (
        (wider, {}, "first data set"),
        (backwards, {}, "first data set"),
        (five_numbers, {"log_evidence": evidence}, "is_exact"),
    ):
        with pytest.raises(InputError, match=f"is of another calibration: {what} was .*, and is .*another file"):
            calibrate(model, PRIOR, n=2, file=file, **more, **SHORT)


@pytest.mark.slow
def test_calibrations_that_go_on_come_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "calibration.json"
    trained = {"loss": TrajectoryBalance(), "behaviour": Replay(), "tolerance": 0.0}
    killed_at(2, file, monkeypatch, **trained)
    found = calibrate(five_numbers, PRIOR, n=4, file=file, **trained, **SHORT)
    again = calibrate(five_numbers, PRIOR, n=4, **trained, **SHORT)
    assert found.fits == again.fits
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration.json", "calibration.json.start_3.pt"]
    (tmp_path / "calibration.json.start_3.pt").unlink()
    with pytest.warns(UserWarning, match="next fit of the calibration begins from nothing"):
        found = calibrate(five_numbers, PRIOR, n=5, file=file, **trained, **SHORT)
    assert found.fits[3].reused and not found.fits[4].reused


@pytest.mark.slow
def test_a_right_model_is_calibrated() -> None:
    found = calibrate(five_numbers, PRIOR, n=60, log_evidence=evidence, progress_bar=False)
    # A false alarm has a chance of 1 % by design; at this seed there is none.
    assert found.is_uniform, str(found)
    # Of 60 intervals at 95 %, fewer than 48 hold with a chance of 1e-5.
    assert found.num_covered >= binom.ppf(1e-5, 60, 0.95)
    ratio = found.evidence_ratio
    assert abs(ratio.value) < 4.4 / 1.96 * (ratio.high - ratio.value), ratio


@pytest.mark.slow
def test_a_wrong_likelihood_is_found_out() -> None:
    def buggy(p: dict) -> Narrower:
        return Narrower(p["mu"][:, None].expand(-1, 5), 1.0)

    found = calibrate(buggy, PRIOR, n=60, progress_bar=False)
    assert not found.is_uniform and "ranks are not uniform" in str(found)
