"""One battery for all grids, over the list in helpers.py."""

from collections.abc import Callable

import pytest
import torch
from helpers import GRIDS, by_name

from diffsampler import InputError
from diffsampler.processes.grids import GeometricGrid, Grid, JitteredGrid, LogSNRGrid, PowerGrid, UniformGrid

Case = tuple[str, Callable[[int], Grid]]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 49, 100, 997])
@pytest.mark.parametrize("case", GRIDS, ids=by_name)
def test_partition_of_the_unit_interval(case: Case, num_steps: int, generator: torch.Generator) -> None:
    if num_steps == 1 and case[0].startswith("GeometricGrid"):
        with pytest.raises(InputError, match="num_steps must be a whole number of at least 2"):
            case[1](1)
        return
    times = case[1](num_steps).times(generator)
    assert times.dtype == torch.float64 and times.device.type == "cpu", case[0]
    assert times.shape == (num_steps + 1,), case[0]
    assert times[0] == 0 and times[-1] == 1, case[0]
    assert (times.diff() > 0).all(), case[0]


@pytest.mark.parametrize("case", GRIDS, ids=by_name)
def test_the_generator_decides(case: Case) -> None:
    grid = case[1](20)
    first, second = (grid.times(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second), case[0]
    assert case[0].split("-")[0] in repr(grid) and "20" in repr(grid), case[0]


@pytest.mark.parametrize("num_steps", [0, -1, 1.5, "10", True, None])
@pytest.mark.parametrize("case", GRIDS, ids=by_name)
def test_refuses_other_numbers_of_steps(case: Case, num_steps: object) -> None:
    with pytest.raises(InputError, match="num_steps"):
        case[1](num_steps)


@pytest.mark.parametrize("case", GRIDS, ids=by_name)
def test_times_are_on_the_cpu_whatever_the_default_device(case: Case) -> None:
    grid = case[1](7)
    expected = grid.times(torch.Generator().manual_seed(1))
    with torch.device("meta"):
        assert grid.times(torch.Generator("cpu").manual_seed(1)).tolist() == expected.tolist()


def test_uniform_and_power_by_hand() -> None:
    torch.testing.assert_close(UniformGrid(4).times(), torch.tensor([0, 0.25, 0.5, 0.75, 1]))
    torch.testing.assert_close(PowerGrid(4, 1.0).times(), UniformGrid(4).times())
    torch.testing.assert_close(PowerGrid(2, 3.0).times(), torch.tensor([0, 1 - 0.125, 1]))


def test_power_above_one_is_fine_at_the_target() -> None:
    assert (PowerGrid(50, 2.0).times().diff().diff() < 0).all()
    assert (PowerGrid(50, 0.5).times().diff().diff() > 0).all()


def test_geometric_by_hand() -> None:
    torch.testing.assert_close(GeometricGrid(3, 0.04).times(), torch.tensor([0, 1 - 0.2, 1 - 0.04, 1]))
    torch.testing.assert_close(GeometricGrid(2, 0.3).times(), torch.tensor([0, 0.7, 1]))


def test_geometric_steps_shrink_by_one_factor_to_the_last() -> None:
    steps = GeometricGrid(64, 0.02).times().diff()
    ratio = steps[1:-1] / steps[:-2]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.02 ** (1 / 63)))
    assert float(steps[-1]) == pytest.approx(0.02)


def test_log_snr_is_uniform() -> None:
    times = LogSNRGrid(21, bound=4.0).times()[1:-1]
    steps = torch.logit(times).diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    assert torch.logit(times).abs().max() < 4


def test_jitter_moves_within_its_cell_and_is_fresh(generator: torch.Generator) -> None:
    grid, uniform = JitteredGrid(10, jitter=0.5), UniformGrid(10).times()
    offsets = torch.stack([(grid.times(generator) - uniform)[1:-1] * 10 for _ in range(200)])
    # 1800 uniform offsets in [-1/4, 1/4]: their largest is below 0.24 with probability 0.96^1800 = 1e-32.
    assert offsets.abs().max() <= 0.25 and offsets.max() > 0.24 and offsets.min() < -0.24
    assert torch.equal(JitteredGrid(10, jitter=0).times(generator), uniform)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PowerGrid(10, power=0.0), "power"),
        (lambda: PowerGrid(10, power=-1.0), "power"),
        (lambda: GeometricGrid(10, last=0.0), "last"),
        (lambda: GeometricGrid(10, last=1.0), "last"),
        (lambda: GeometricGrid(10, last=float("nan")), "last"),
        (lambda: LogSNRGrid(10, bound=0.0), "bound"),
        (lambda: LogSNRGrid(10, bound=float("inf")), "bound"),
        (lambda: JitteredGrid(10, jitter=1.0), "jitter"),
        (lambda: JitteredGrid(10, jitter=-0.1), "jitter"),
        (lambda: JitteredGrid(10, jitter=float("nan")), "jitter"),
    ],
)
def test_refuses_bad_shapes_of_grid(make: Callable[[], Grid], name: str) -> None:
    with pytest.raises(InputError, match=name):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PowerGrid(997, 6.0), "(?i)power"),
        (lambda: LogSNRGrid(100, 40.0), "LogSNR|bound"),
        (lambda: GeometricGrid(997, 1e-17), "GeometricGrid has steps too short"),
    ],
)
def test_refuses_grids_that_float64_cannot_resolve(make: Callable[[], Grid], name: str) -> None:
    # (1 / 997)^6 and exp(-40) vanish next to 1: two times would coincide.
    with pytest.raises(InputError, match=name):
        make().times()
