"""Buffers, priorities, replay, local search and combinations."""

import io
import math
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch
from helpers import Z_BOUND, CountingTarget, correlated_gaussian, random_sampler, two_modes

from diffsampler import FunctionTarget, InputError, Sampler
from diffsampler.baseline.mcmc import MALA
from diffsampler.behaviours import (
    Alternation,
    BackAndForth,
    ExpertSamples,
    Exploration,
    ImportancePriority,
    MarkovChainSearch,
    Mixture,
    OnPolicy,
    Priority,
    RankPriority,
    Replay,
    RewardPriority,
    UniformPriority,
)
from diffsampler.behaviours.buffer import PointBuffer
from diffsampler.coordinates import AffineCoordinates
from diffsampler.losses import TrajectoryBalance
from diffsampler.networks import FourierMLP
from diffsampler.paths import back_and_forth, evaluate, rollout
from diffsampler.processes import PinnedBrownian
from diffsampler.training.module import SamplerModule


def filled(n: int, capacity: int = 10) -> PointBuffer:
    buffer = PointBuffer(capacity)
    for k in range(n):
        buffer.add(torch.full((1, 2), float(k)), torch.tensor([float(k)]), torch.tensor([-float(k)]))
    return buffer


def test_the_newest_points_push_out_the_oldest() -> None:
    buffer = filled(13, capacity=5)
    assert len(buffer) == 5 and sorted(buffer.log_prob.tolist()) == [8, 9, 10, 11, 12]
    buffer.add(torch.arange(14.0).reshape(7, 2), torch.arange(7.0))
    assert sorted(buffer.log_prob.tolist()) == [2, 3, 4, 5, 6]
    assert torch.equal(buffer.x[:, 0], 2 * buffer.log_prob)


def test_leaves_out_what_is_not_finite() -> None:
    buffer = PointBuffer(10)
    buffer.add(torch.zeros(4, 2), torch.tensor([0.0, math.nan, -math.inf, math.inf]))
    assert len(buffer) == 1


def test_buffer_state_is_plain_and_keeps_the_order() -> None:
    buffer = filled(13, capacity=5)
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    other = PointBuffer(5)
    other.load_state_dict(torch.load(file, weights_only=True))
    buffer.add(torch.zeros(2, 2), torch.tensor([100.0, 101.0]))
    other.add(torch.zeros(2, 2), torch.tensor([100.0, 101.0]))
    assert sorted(buffer.log_prob.tolist()) == sorted(other.log_prob.tolist()) == [10, 11, 12, 100, 101]


@pytest.mark.parametrize(
    ("priority", "expected"),
    [
        (UniformPriority(), [1.0, 1.0, 1.0, 1.0]),
        (RewardPriority(2.0), [1.0, math.exp(2), math.exp(4), math.exp(6)]),
        (RankPriority(0.25), [1 / 4, 1 / 3, 1 / 2, 1]),
        (ImportancePriority(), [1.0, math.exp(-1), math.exp(-2), math.exp(-3)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_priorities(priority: Priority, expected: list[float], generator: torch.Generator) -> None:
    # 20000 draws: binomial shares within 4.5 standard errors, 3e-5 for the four places.
    index = filled(4).sample(20_000, priority, generator)
    share = torch.bincount(index, minlength=4) / 20_000
    truth = torch.tensor(expected) / sum(expected)
    assert ((share - truth).abs() < Z_BOUND * (truth * (1 - truth) / 20_000).sqrt()).all(), share


def test_replay_takes_turns_and_rolls_back_what_it_kept(generator: torch.Generator) -> None:
    sampler, replay = random_sampler(grid=3), Replay(replays=2)
    fresh = replay.paths(sampler.dynamics, 50, generator, 0.0)
    assert len(replay.buffer) == 50
    for _ in range(2):
        again = replay.paths(sampler.dynamics, 20, generator, 0.0)
        kept = (again.x[-1][:, None] == fresh.x[-1][None]).all(-1).any(1)
        assert kept.all() and not torch.equal(again.x[1], fresh.x[1][:20])
    replay.paths(sampler.dynamics, 50, generator, 0.0)
    assert len(replay.buffer) == 100


def test_replay_costs_one_evaluation_a_trajectory(generator: torch.Generator) -> None:
    target = CountingTarget(correlated_gaussian())
    sampler = Sampler(target, control=FourierMLP, flow=None, grid=3)
    replay, loss = Replay(), TrajectoryBalance()
    for _ in range(4):
        loss.step(sampler.dynamics, replay, 10, generator, 0.0)
    assert target.count == 40 == sampler.num_target_evaluations


def test_importance_replay_keeps_the_weights(generator: torch.Generator) -> None:
    sampler, replay = random_sampler(grid=3), Replay(priority=ImportancePriority())
    path = replay.paths(sampler.dynamics, 30, generator, 0.0)
    torch.testing.assert_close(replay.buffer.log_weight, evaluate(sampler.dynamics, path).log_weight.detach())
    with pytest.raises(InputError, match="ImportancePriority needs the weights"):
        Replay(priority=ImportancePriority(), search=BackAndForth())


def test_replay_resumes_as_it_was(generator: torch.Generator) -> None:
    sampler, replay = random_sampler(grid=3), Replay(capacity=30)
    for _ in range(3):
        replay.paths(sampler.dynamics, 20, generator, 0.0)
    other = Replay(capacity=30)
    other.load_state_dict(replay.state_dict())
    first, second = (b.paths(sampler.dynamics, 20, torch.Generator().manual_seed(2), 0.0).x for b in (replay, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dim", [2, 3])
def test_points_of_a_state_are_those_of_its_density(dim: int, generator: torch.Generator) -> None:
    sampler, replay = random_sampler(grid=3), Replay()
    other = Sampler(FunctionTarget(lambda x: -(x - 1).square().sum(-1), dim), process=PinnedBrownian, grid=3)
    for _ in range(3):
        replay.paths(sampler.dynamics, 20, generator, 0.0)
    again, new = Replay(), Replay()
    again.load_state_dict(states_of(replay))
    first, second = (b.paths(other.dynamics, 20, torch.Generator().manual_seed(2), 0.0).x for b in (again, new))
    assert torch.equal(first, second) and torch.equal(again.buffer.x, new.buffer.x), "as if nothing had been loaded"


def test_a_state_costs_no_evaluations(generator: torch.Generator) -> None:
    sampler, replay, again = random_sampler(grid=3), Replay(), Replay()
    replay.paths(sampler.dynamics, 20, generator, 0.0)
    again.load_state_dict(states_of(replay))
    before = sampler.num_target_evaluations
    again.end_points(sampler.dynamics, 20, generator, 0.0)
    assert sampler.num_target_evaluations == before and len(again.buffer) == 20


def test_search_moves_points_uphill_and_counts(generator: torch.Generator) -> None:
    sampler = random_sampler(grid=4)
    x = torch.full((40, 2), 3.0)
    log_prob = sampler.counter.log_prob(x)
    for search in (MarkovChainSearch(num_steps=60, burn_in=40), BackAndForth(num_steps=3, num_rounds=10)):
        before = sampler.num_target_evaluations
        new, new_log_prob = search.improve(sampler.dynamics, x, log_prob, generator)
        torch.testing.assert_close(new_log_prob, sampler.target.log_prob(new))
        assert new_log_prob.median() > log_prob.median() + 1, type(search).__name__
        assert sampler.num_target_evaluations > before
    greedy = BackAndForth(num_steps=3, num_rounds=5, temperature=0.0)
    assert (greedy.improve(sampler.dynamics, x, log_prob, generator)[1] >= log_prob).all()


def test_back_and_forth_keeps_the_steps_before(generator: torch.Generator) -> None:
    sampler = random_sampler(grid=4)
    path = rollout(sampler.dynamics, 30, generator)
    new, log_prob = back_and_forth(sampler.dynamics, path.x[-1], 1, generator)
    torch.testing.assert_close(log_prob, sampler.target.log_prob(new))
    # One step of width 1 / 2 back and one forth: nearer to the old end than another rollout is.
    assert (new - path.x[-1]).norm(dim=-1).mean() < (rollout(sampler.dynamics, 30, generator).x[-1] - path.x[-1]).norm(
        dim=-1
    ).mean()


def test_search_lets_only_usable_points_in(generator: torch.Generator) -> None:
    target = FunctionTarget(lambda x: torch.where(x[..., 0] > 0, -x.square().sum(-1), -math.inf), dim=2)
    sampler = random_sampler(target, control=FourierMLP, grid=3)
    replay = Replay(search=MarkovChainSearch(num_steps=4, burn_in=2, keep_every=1), search_every=1)
    replay.paths(sampler.dynamics, 40, generator, 0.0)
    assert 0 < len(replay.buffer) < 80 and (replay.buffer.x[:, 0] > 0).all()


def test_expert_samples_from_a_file(tmp_path: FilePath, generator: torch.Generator) -> None:
    points = np.random.default_rng(0).normal(size=(5, 2))
    np.save(tmp_path / "points.npy", points)
    coordinates = AffineCoordinates(torch.tensor([1.0, 2.0]), torch.diag(torch.tensor([2.0, 0.5])))
    sampler = random_sampler(grid=3, coordinates=coordinates)
    behaviour = ExpertSamples(str(tmp_path / "points.npy"))
    behaviour.check(sampler.dynamics)
    ends, _ = coordinates(behaviour.paths(sampler.dynamics, 30, generator, 0.0).x[-1])
    distance = (ends[:, None] - torch.as_tensor(points)[None]).norm(dim=-1).min(1).values
    assert distance.max() < 1e-12
    with pytest.raises(InputError, match="dimension 4"):
        behaviour.check(Sampler(two_pairs(), grid=2).dynamics)
    with pytest.raises(InputError, match="file must be"):
        ExpertSamples(str(tmp_path / "nothing.npy"))


def two_pairs() -> FunctionTarget:
    return FunctionTarget(lambda x: -x.square().sum(-1), dim=4)


def test_expert_samples_need_points() -> None:
    with pytest.raises(InputError, match="FunctionTarget has no exact samples"):
        SamplerModule(Sampler(two_pairs(), grid=2), TrajectoryBalance(), Alternation([OnPolicy(), ExpertSamples()]))


@pytest.mark.slow
def test_alternation_and_mixture(generator: torch.Generator) -> None:
    sampler = random_sampler(two_modes(), grid=3)
    turns = Alternation([OnPolicy(), ExpertSamples(), ExpertSamples()])
    # Rolled-back paths carry no target values where P_B needs none.
    kinds = [turns.paths(sampler.dynamics, 2, generator, 0.0).log_prob is None for _ in range(6)]
    assert kinds == [False, True, True, False, True, True]
    assert not turns.on_policy and not turns.backward and Mixture([OnPolicy()]).on_policy
    # 2000 draws of a share of 0.3: within 4.5 standard errors, 7e-6.
    mixture = Mixture([ExpertSamples(), Exploration()], [0.3, 0.7])
    share = np.mean([mixture.paths(sampler.dynamics, 1, generator, 0.0).log_prob is None for _ in range(2000)])
    assert abs(share - 0.3) < Z_BOUND * math.sqrt(0.3 * 0.7 / 2000)
    with pytest.raises(InputError, match="weights"):
        Mixture([OnPolicy()], [1.0, 2.0])
    with pytest.raises(InputError, match="at least one"):
        Alternation([])


def states_of(behaviour: object) -> object:
    """Through a checkpoint and back."""
    file = io.BytesIO()
    torch.save(behaviour.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("before", "after"), [(7, 20), (13, 5), (3, 5), (5, 5)])
def test_buffers_change_their_capacity(before: int, after: int) -> None:
    # Seven points into a ring of five, and then one of another capacity.
    buffer, other = filled(before, capacity=5), PointBuffer(after)
    other.load_state_dict(buffer.state_dict())
    kept = list(range(before))[-min(5, after) :]
    assert sorted(other.log_prob.tolist()) == kept
    for k in range(100, 102):
        other.add(torch.full((1, 2), float(k)), torch.tensor([float(k)]))
    assert sorted(other.log_prob.tolist()) == [*kept, 100, 101][-after:]


def test_checkpoints_hold_points_and_not_the_allocation() -> None:
    buffer = filled(3, capacity=100_000)
    state = buffer.state_dict()
    assert sum(state[name].untyped_storage().nbytes() for name in ("x", "log_prob", "log_weight")) < 200


def test_a_buffer_not_yet_drawn_from_survives_another_checkpoint(generator: torch.Generator) -> None:
    sampler, replay = random_sampler(grid=3), Replay(capacity=30)
    replay.paths(sampler.dynamics, 20, generator, 0.0)
    once, twice = Replay(capacity=30), Replay(capacity=30)
    once.load_state_dict(states_of(replay))
    twice.load_state_dict(states_of(once))
    first, second = (b.paths(sampler.dynamics, 20, torch.Generator().manual_seed(2), 0.0).x for b in (replay, twice))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Replay(search=MarkovChainSearch(num_steps=6, burn_in=4, keep_every=1), search_every=1),
        lambda: Alternation([Replay(), OnPolicy(), ExpertSamples()]),
        lambda: Mixture([Replay(Replay()), Exploration()], [0.6, 0.4]),
    ],
    ids=["search", "alternation", "mixture"],
)
def test_behaviours_go_on_as_if_nothing_had_happened(make: object) -> None:
    sampler = random_sampler(two_modes(), grid=3)
    whole, generator = make(), torch.Generator().manual_seed(4)
    for _ in range(5):
        whole.paths(sampler.dynamics, 20, generator, 0.0)
    resumed, state = make(), generator.get_state()
    resumed.load_state_dict(states_of(whole))
    for _ in range(4):
        first = whole.paths(sampler.dynamics, 20, generator, 0.0).x
    generator.set_state(state)
    for _ in range(4):
        second = resumed.paths(sampler.dynamics, 20, generator, 0.0).x
    assert torch.equal(first, second)


def test_search_keeps_its_schedule(generator: torch.Generator) -> None:
    sampler = random_sampler(grid=3)

    class Recording(MarkovChainSearch):
        calls = 0

        def improve(self, *args: object) -> tuple:
            self.calls += 1
            return super().improve(*args)

    search = Recording(num_steps=9, burn_in=3, keep_every=2)
    replay = Replay(search=search, search_every=3)
    for turn, expected in zip(range(14), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3], strict=True):
        replay.paths(sampler.dynamics, 10, generator, 0.0)
        assert search.calls == expected, turn
    # Of six steps after the burn-in every second is kept: three states of each of ten chains.
    assert len(replay.buffer) == 3 * 30


def test_adaptation_ends_with_the_burn_in(generator: torch.Generator) -> None:
    class Recording(MALA):
        adapted: list[bool] = []

        def step(self, *args: object, adapt: bool = True) -> tuple:
            self.adapted.append(adapt)
            return super().step(*args, adapt=adapt)

    sampler = random_sampler(grid=3)
    search = MarkovChainSearch(Recording(), num_steps=5, burn_in=2, keep_every=1)
    search.improve(sampler.dynamics, torch.zeros(4, 2), torch.zeros(4), generator)
    assert Recording.adapted == [True, True, False, False, False]


def test_temperature_decides_how_much_worse_is_kept(generator: torch.Generator) -> None:
    sampler, x = random_sampler(grid=4), torch.tensor([[0.4, -0.3]]).expand(400, 2)  # the mode: all moves are worse
    log_prob = sampler.counter.log_prob(x)
    moved = {
        t: float(
            (BackAndForth(3, 1, t).improve(sampler.dynamics, x, log_prob, generator)[0] != x).any(-1).double().mean()
        )
        for t in (0.0, 1.0, 1e6)
    }
    assert moved[0.0] < 0.01 and 0.05 < moved[1.0] < 0.95 and moved[1e6] > 0.99, moved
