"""Samplers that go on with another target: what they reuse, what they forget, and what they find."""

import math
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND
from scipy.special import ive
from torch.distributions import VonMises

from diffsampler import FunctionTarget, InputError, Sampler, Target, assess, fit
from diffsampler.baseline import reference
from diffsampler.baseline.reweighted import KnownDraws
from diffsampler.behaviours import Alternation, OnPolicy, Replay
from diffsampler.coordinates import AffineCoordinates, LaplaceCoordinates
from diffsampler.log_z import estimate_log_z
from diffsampler.processes import PinnedBrownian
from diffsampler.spaces import Lattice, Particles
from targets import Gaussian

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SHORT = {"max_steps": 20, "batch_size": 32, "num_eval_samples": 500, **QUIET}


def skewed(shift: float, width: float = 1.0) -> Target:
    """A Gumbel and a normal density, of known log Z, that data have moved."""

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        z = (x - shift) / width
        return z[..., 0] - z[..., 0].exp() - 0.5 * z[..., 1].square()

    return FunctionTarget(log_prob, 2, log_z=2 * math.log(width) + 0.5 * math.log(2 * math.pi))


def twins(apart: float) -> Target:
    """Two modes of width 1 and equal mass, of log Z 0."""
    centres = torch.tensor([[-apart, 0.0], [apart, 0.0]]).double()

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        squares = (x.unsqueeze(-2) - centres.to(x)).square().sum(-1)
        return torch.logsumexp(-0.5 * squares, -1) - math.log(4 * math.pi)

    return FunctionTarget(log_prob, 2, log_z=0.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sampler that was searched, of `skewed(0.0)`."""
    path = tmp_path_factory.mktemp("warm") / "sampler.pt"
    sampler = Sampler(skewed(0.0))
    fit(sampler, seed=0, **SHORT)
    sampler.save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "width"), [(0.5, 0.7), (8.0, 0.2)])
def test_new_data_cost_less_than_half(
    saved: Path, shift: float, width: float, capsys: pytest.CaptureFixture[str]
) -> None:
    sampler, target = Sampler.load(saved, skewed(0.0)), skewed(shift, width)
    from_nothing, before = sampler.num_target_evaluations, sampler.reference.log_z
    history = fit(sampler, target=target, seed=1, **{**SHORT, "enable_progress_bar": None})
    # 0.26 to 0.36 of them; search, checks and validations of both included.
    assert sampler.target is target and sampler.num_target_evaluations < from_nothing / 2
    said = capsys.readouterr().err
    assert "Warm start" in said and "found anew from those of the target before" in history[-1]["reused"]
    assert history[-1]["reused"] in said
    # 1e-4 of a normal error at 3.9 standard errors; intervals are at 1.96.
    for estimate in (sampler.reference, assess(sampler, seed=2, history=history).estimate):
        assert abs(estimate.log_z - target.log_z) < 2 * max(estimate.high - estimate.log_z, 1e-3)
    assert abs(before - target.log_z) > 0.3, "that of the old data would be found out"


@pytest.mark.slow
def test_modes_that_are_new_are_searched_from_nothing(saved: Path) -> None:
    known = Sampler.load(saved, skewed(0.0)).coordinates.proposal
    found = reference(twins(40.0), seed=1, known=known)
    # One mode alone is log 2 off.
    assert not found.is_warm and abs(found.estimate.log_z) < 0.1


def test_parts_of_ones_own_go_on_with_what_they_have_learned() -> None:
    sampler = Sampler(Gaussian([0.0, 0.0], 1.0), process=PinnedBrownian, grid=5)
    fit(sampler, **{**SHORT, "max_steps": 5})
    weights = [parameter.clone() for parameter in sampler.policy.control.parameters()]
    target = Gaussian([1.0, 0.0], 2.0)
    sampler.move_to(target)
    assert sampler.num_target_evaluations == 0 and sampler.target is target
    kept = zip(weights, sampler.policy.control.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in kept)
    x, log_weight = sampler.sample(200, seed=0, return_log_weights=True)
    other = Sampler(target, process=PinnedBrownian, grid=5)
    other.policy.load_state_dict(sampler.policy.state_dict())
    again, log_weight_again = other.sample(200, seed=0, return_log_weights=True)
    torch.testing.assert_close(x, again)
    torch.testing.assert_close(log_weight, log_weight_again)


def test_coordinates_that_are_made_are_made_again() -> None:
    sampler = Sampler(Gaussian([0.0, 0.0], 1.0), process=PinnedBrownian, grid=5, coordinates=LaplaceCoordinates)
    sampler.move_to(Gaussian([5.0, -3.0], 0.25))
    torch.testing.assert_close(sampler.coordinates.loc, torch.tensor([5.0, -3.0]).double())
    assert sampler.num_target_evaluations == sampler.coordinates.num_target_evaluations > 0


def test_declared_coordinates_are_the_new_targets() -> None:
    class Far(Gaussian):
        def __init__(self, loc: float) -> None:
            super().__init__([loc, loc], 1.0)
            self.coordinates = lambda target: AffineCoordinates(torch.full((2,), loc), torch.eye(2))

    sampler = Sampler(Far(0.0), process=PinnedBrownian, grid=5)
    sampler.move_to(Far(50.0))
    assert (sampler.coordinates.loc == 50.0).all()
    with pytest.raises(InputError, match="declares no coordinates"):
        sampler.move_to(Gaussian([0.0, 0.0], 1.0))


def test_another_support_is_the_new_targets() -> None:
    def on(low: float) -> Target:
        return FunctionTarget(lambda x: -(x - low).sum(-1), 2, support=(low, math.inf))

    sampler = Sampler(on(0.0), process=PinnedBrownian, grid=5)
    sampler.move_to(on(7.0))
    assert (sampler.sample(50, seed=0) > 7.0).all()


def test_what_is_no_warm_start_is_refused() -> None:
    first = Gaussian([0.0, 0.0], 1.0)
    sampler = Sampler(first, process=PinnedBrownian, grid=5)
    with pytest.raises(InputError, match="tolerance"):
        fit(sampler, target=Gaussian([1.0, 0.0], 1.0), tolerance=-1.0, **SHORT)
    with pytest.raises(
        InputError, match=r"must live where that of the sampler does, Euclidean\(dim=2\), got Euclidean\(dim=3\)"
    ):
        fit(sampler, target=Gaussian([0.0] * 3, 1.0), **SHORT)
    with pytest.raises(InputError, match="must be a Target, got the class Gaussian"):
        fit(sampler, target=Gaussian, **SHORT)
    with pytest.raises(InputError, match="differentiable=False"):
        sampler.move_to(FunctionTarget(lambda x: -x.square().sum(-1), 2, differentiable=False))
    with pytest.raises(InputError, match="either ckpt_path"):
        fit(sampler, target=Gaussian([1.0, 0.0], 1.0), ckpt_path="last.ckpt", **SHORT)
    with pytest.raises(InputError, match=r"fit\(sampler, target=...\) for another target"):
        sampler.target = Gaussian([1.0, 0.0], 1.0)
    assert sampler.target is first


def test_points_of_the_density_before_are_not_replayed() -> None:
    """Neither after a warm start, nor where data change in their place."""
    first, far = Gaussian([0.0, 0.0], 1.0), Gaussian([50.0, 0.0], 1.0)
    sampler, inner = Sampler(first, process=PinnedBrownian, grid=5), Replay(replays=3)
    behaviour = Alternation([inner, OnPolicy()])
    generator = torch.Generator().manual_seed(0)

    def train(**options: object) -> set[tuple[float, ...]]:
        """One step, which is one of fresh paths where nothing is kept; all that is kept after it."""
        fit(sampler, behaviour=behaviour, **{**SHORT, "max_steps": 1}, **options)
        behaviour.turn = 0
        return set(map(tuple, inner.buffer.x.tolist()))

    before = train()
    assert train() == before, "the same density: its points are replayed, no fresh ones kept"
    after = train(target=far)
    assert len(after) == 32 and not after & before
    far.mean.add_(1.0)
    changed = train()
    assert len(changed) == 32 and not changed & after
    other = Sampler(first, process=PinnedBrownian, grid=5)
    assert not {*map(tuple, inner.paths(other.dynamics, 8, generator, 0.0).x[-1].tolist())} & changed


def test_particles_that_differ_are_another_space() -> None:
    def pairs(identical: bool) -> Target:
        return FunctionTarget(lambda x: -x.square().sum(-1), 6, space=Particles(3, 2, identical=identical))

    with pytest.raises(InputError, match="identical=False"):
        Sampler(pairs(True), grid=5).move_to(pairs(False))


class Chain(Target):
    """Free fields on a periodic chain of four sites with a mass, or two of them apart, of the same log Z."""

    def __init__(self, mass: float, apart: float = 0.0) -> None:
        super().__init__(4)
        self.space, self.apart = Lattice([4]), apart
        self.precision = (2 + mass) * torch.eye(4).double()
        self.precision -= torch.eye(4).double().roll(1, 0) + torch.eye(4).double().roll(-1, 0)
        self.log_z = 2 * math.log(2 * math.pi) - 0.5 * float(torch.logdet(self.precision))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.stack([x - self.apart, x + self.apart]).double()
        squares = (both @ self.precision * both).sum(-1)
        return torch.logsumexp(-0.5 * squares, 0) - math.log(2)


def test_draws_of_a_lattice_are_reweighted() -> None:
    sampler = Sampler(Chain(1.0))
    sampler.search(seed=0)
    from_nothing, target = sampler.search_cost, Chain(1.3)
    sampler.move_to(target)
    found = sampler.search(seed=1)
    assert found.is_warm and sampler.coordinates.is_warm and sampler.search_cost < from_nothing / 3
    # The interval is of two errors that are added up: 1e-4 of a normal error is beyond 3.9 of them, or twice as wide.
    assert abs(sampler.reference.log_z - target.log_z) < 2 * (sampler.reference.high - sampler.reference.log_z)
    # Moved draws are the new density's: its energy has the mean 2, of standard deviation 2^(1/2), here of copies.
    energy = -target.log_prob(sampler.coordinates.points)
    assert abs(float(energy.mean()) - 2) < 0.2
    # A second time from there, and what is far away from nothing.
    sampler.move_to(Chain(1.0, apart=6.0))
    found = sampler.search(seed=2)
    assert not found.is_warm and abs(sampler.reference.log_z - Chain(1.0).log_z) < 0.1


def test_a_mode_that_no_old_draw_is_in_is_not_missed() -> None:
    """Of fields on a chain that a field held on one side: without it, half of the mass is on the other."""
    both = Chain(1.0, apart=4.0)
    root = torch.linalg.cholesky(torch.linalg.inv(both.precision))
    noise = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one_side = -0.5 * noise.square().sum(-1) - math.log(2)
    held = estimate_log_z(torch.full((5000,), both.log_z - math.log(2)).double())
    found = reference(both, num_particles=200, seed=0, known=KnownDraws(noise @ root.T + 4.0, one_side, held))
    assert not found.is_warm and abs(found.estimate.log_z - both.log_z) < 0.3  # log 2 where one mode is missed


class Tailed(Chain):
    """A chain with a share of twenty on one that is 2.5 times as wide."""

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        wide = super().log_prob(x / 2.5) - 4 * math.log(2.5)
        return torch.logaddexp(math.log(0.95) + super().log_prob(x), math.log(0.05) + wide)


def on_circle(concentration: float) -> Target:
    """A von Mises density."""
    return FunctionTarget(lambda x: concentration * x[..., 0].cos(), 1, periodic=True)


@pytest.mark.parametrize("what", ["few draws of many", "few draws", "an uncertain log Z", "heavier tails"])
def test_where_weights_of_known_draws_say_too_little_the_search_begins_from_nothing(what: str) -> None:
    generator, uncertain = torch.Generator().manual_seed(1), 0.0
    if what == "heavier tails":  # by the last of the draws: log Z would be 0.02 to 0.04 off, for an error of 0.002
        first, target = Chain(1.0), Tailed(1.0)
        root = torch.linalg.cholesky(torch.linalg.inv(first.precision))
        x, log_z = torch.randn(6000, 4, generator=generator).double() @ root.T, first.log_z
    else:
        # The ESS of uniform draws is I_0(k)^2 / I_0(2 k): 0.103 for 30, but of many a log Z that is precise.
        concentration, num = {"few draws of many": (30.0, 100_000), "few draws": (0.1, 20)}.get(what, (1.0, 5000))
        first, target, log_z = on_circle(0.0), on_circle(concentration), math.log(2 * math.pi)
        x = 2 * math.pi * torch.rand(num, 1, generator=generator).double()
        uncertain = 1.5 if what == "an uncertain log Z" else 0.0
    log_weight = log_z - 0.5 * uncertain**2 + uncertain * torch.randn(len(x), generator=generator).double()
    known = KnownDraws(x, first.log_prob(x), estimate_log_z(log_weight))
    assert not reference(target, 100, seed=1, known=known, max_evaluations=1).is_warm


def test_draws_that_are_weighed_once_and_again_have_no_bias() -> None:
    """Von Mises angles, by exact draws at first: log Z is log 2 pi I_0(k), the mean of cos x is I_1(k) / I_0(k)."""

    def log_z(concentration: float) -> float:
        return math.log(2 * math.pi * ive(0, concentration)) + concentration

    num, first = 20_000, on_circle(0.7)
    draws = VonMises(torch.zeros(num, 1).double(), torch.tensor(0.7).double())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = draws.sample()
    known = KnownDraws(x, first.log_prob(x), estimate_log_z(torch.full((num,), log_z(0.7)).double()))
    for concentration in (1.5, 2.5, 4.0):
        target = on_circle(concentration)
        found = reference(target, seed=1, known=known)
        known = KnownDraws(found.x, found.log_prob, found.estimate)
        assert found.is_warm and abs(found.estimate.log_z - log_z(concentration)) < 0.05
        assert len(found.x.unique(dim=0)) > 0.9 * num, "copies are moved apart"
        mean = float(ive(1, concentration) / ive(0, concentration))
        # The variance of cos x is below 0.5. Draws are weighed, with an ESS above 0.3, then moved: 1e-4 in each case.
        error = math.sqrt(0.5 / (0.3 * num))
        assert abs(float(found.x.cos().mean()) - mean) < Z_BOUND * error
