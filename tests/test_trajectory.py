"""The two records, against their definitions."""

import math

import pytest
import torch
from helpers import balance_by_hand
from torch import Tensor

from diffsampler.density import ZERO_DENSITY_MARGIN
from diffsampler.paths import Path, Trajectory


def random_trajectory(num_steps: int, generator: torch.Generator, flow: bool = True) -> Trajectory:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Trajectory(
        log_pf=draw(num_steps, 5),
        log_pb=draw(num_steps, 5),
        log_prior=draw(5),
        log_prob=draw(5),
        log_z=torch.tensor(0.6),
        log_flow=draw(num_steps - 1, 5) if flow else None,
    )


@pytest.mark.parametrize("num_steps", [1, 2, 6])
def test_u_is_its_definition(num_steps: int, generator: torch.Generator) -> None:
    trajectory = random_trajectory(num_steps, generator)
    assert trajectory.num_steps == num_steps
    torch.testing.assert_close(trajectory.u, torch.stack(balance_by_hand(trajectory)))
    torch.testing.assert_close(trajectory.u[[0, -1]], torch.stack(trajectory.balance_ends))


@pytest.mark.parametrize("flow", [True, False])
def test_log_weight_is_its_definition(flow: bool, generator: torch.Generator) -> None:
    trajectory = random_trajectory(4, generator, flow)
    by_hand = trajectory.log_prob + trajectory.log_pb.sum(0) - trajectory.log_prior - trajectory.log_pf.sum(0)
    torch.testing.assert_close(trajectory.log_weight, by_hand)
    start, end = trajectory.balance_ends
    torch.testing.assert_close(end - start + trajectory.log_z, by_hand)


def test_u_without_a_flow_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="uses_flow"):
        _ = random_trajectory(3, generator, flow=False).u


def test_unusable_end_points_count_as_a_small_weight(generator: torch.Generator) -> None:
    trajectory = random_trajectory(3, generator)
    trajectory.log_prob[:3] = torch.tensor([-math.inf, math.nan, math.inf])
    start, end = trajectory.balance_ends
    torch.testing.assert_close((end - start)[:3], torch.full((3,), -ZERO_DENSITY_MARGIN))
    assert trajectory.u.isfinite().all()
    # The weights themselves are not repaired.
    assert trajectory.log_weight[0] == -math.inf and trajectory.log_weight[1].isnan()
    torch.testing.assert_close((end - start + trajectory.log_z)[3:], trajectory.log_weight[3:])


def test_paths_check_their_shapes() -> None:
    times = torch.linspace(0, 1, 4)
    assert Path(times, torch.zeros(4, 2, 3)).num_steps == 3
    for states in (torch.zeros(4, 2), torch.zeros(5, 2, 3), torch.zeros(3, 2, 3)):
        with pytest.raises(ValueError, match="path"):
            Path(times, states)
    with pytest.raises(ValueError, match="log_prob"):
        Path(times, torch.zeros(4, 2, 3), log_prob=torch.zeros(4, 2, 1))
    with pytest.raises(ValueError, match="score"):
        Path(times, torch.zeros(4, 2, 3), score=torch.zeros(4, 2))
