"""Energies from outside: which forms they have, what is checked, what happens when they fail, worker processes."""

import copy
import gc
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import by_name

from diffsampler import FunctionTarget, InputError, LogZEstimate, Sampler, assess, fit
from diffsampler.counted import CountedTarget
from diffsampler.networks import FourierMLP
from diffsampler.spaces import Circle, Particles

TEMPERATURE = 2.0


def closed_form(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log R and score of the energy below."""
    energy = (0.25 * x**4).sum(-1) + x[..., 0].sin() * x[..., 1]
    gradient = x**3
    gradient[..., 0] += x[..., 0].cos() * x[..., 1]
    gradient[..., 1] += x[..., 0].sin()
    return -energy / TEMPERATURE, -gradient / TEMPERATURE


def of_arrays(x: np.ndarray) -> np.ndarray:
    return 0.25 * np.sum(np.power(x, 4), axis=-1) + np.sin(x[..., 0]) * x[..., 1]


def forces_of_arrays(x: np.ndarray) -> np.ndarray:
    forces = -np.power(x, 3)
    forces[..., 0] -= np.cos(x[..., 0]) * x[..., 1]
    forces[..., 1] -= np.sin(x[..., 0])
    return forces


def of_tensors(x: torch.Tensor) -> torch.Tensor:
    return 0.25 * torch.pow(x, 4).sum(dim=-1) + torch.sin(x[..., 0]) * x[..., 1]


def forces_of_tensors(x: torch.Tensor) -> torch.Tensor:
    return closed_form(x)[1] * TEMPERATURE


def forces_as_matrix(x: np.ndarray) -> np.ndarray:
    return forces_of_arrays(x).reshape(*x.shape[:-1], 2, 2)


def both_of_arrays(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return of_arrays(x), forces_of_arrays(x)


def in_place(x: np.ndarray) -> np.ndarray:
    energy = of_arrays(x)
    x[:] = np.nan
    return energy


FORMS = [
    ("arrays", of_arrays, forces_of_arrays),
    ("arrays, forces in rows of particles", of_arrays, forces_as_matrix),
    ("arrays, both at once", both_of_arrays, True),
    ("arrays changed in place", in_place, forces_of_arrays),
    ("tensors", of_tensors, forces_of_tensors),
    ("tensors, by autograd", of_tensors, None),
]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=by_name)
def test_value_and_score_are_those_of_the_energy(form: tuple, batched: bool, workers: int) -> None:
    _, energy, forces = form
    target = FunctionTarget.from_energy(energy, 4, forces, TEMPERATURE, batched, workers)
    assert target.differentiable
    for shape in ((), (3,), (2, 3), (0,)):
        for dtype in (torch.float32, torch.float64):
            x = torch.randn(*shape, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
            before = x.clone()
            log_prob, score = target.log_prob_and_score(x)
            assert torch.equal(x, before)
            expected = closed_form(x.double())
            for got, value in zip((log_prob, target.log_prob(x), score), (expected[0], *expected), strict=True):
                assert got.shape == value.shape
                torch.testing.assert_close(got.double(), value, rtol=1e-5, atol=1e-5)


def test_without_forces_arrays_have_no_score() -> None:
    target = FunctionTarget.from_energy(of_arrays, 4, batched=False)
    assert not target.differentiable
    with pytest.raises(InputError, match="FourierMLP"):
        Sampler(target, grid=2, control=None, flow=None)
    assert Sampler(target, control=FourierMLP, grid=2).sample(5, seed=0).shape == (5, 4)
    # math.exp takes tensors, out of sight of autograd.
    half_seen = FunctionTarget.from_energy(lambda x: x[0] ** 2 + math.exp(x[1]) + x[1] ** 2, 2, batched=False)
    assert not half_seen.differentiable
    assert FunctionTarget.from_energy(lambda x: x @ x, 2, batched=False).differentiable  # works in either


def test_gradients_reach_points_through_forces() -> None:
    target = FunctionTarget.from_energy(of_arrays, 4, forces_of_arrays, TEMPERATURE)
    x = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
    (score,) = torch.autograd.grad((2 * target.log_prob(x)).sum(), x)
    torch.testing.assert_close(score, 2 * closed_form(x.detach())[1])


def steep(x: np.ndarray) -> np.ndarray:
    return np.sum(np.abs(x) ** -12.0 - np.abs(x) ** -6.0 + 0.5 * x**2, -1)


def steep_forces(x: np.ndarray) -> np.ndarray:
    return 12 * np.abs(x) ** -12.0 / x - 6 * np.abs(x) ** -6.0 / x - x


def rounded(x: np.ndarray) -> np.ndarray:
    return (1000 + of_arrays(x)).astype(np.float32)


@pytest.mark.parametrize("case", [(steep, steep_forces), (rounded, forces_of_arrays)], ids=["steep", "rounded"])
def test_right_forces_pass_where_differences_are_hard(case: tuple[Callable, Callable]) -> None:
    FunctionTarget.from_energy(case[0], 4, case[1])


def one_wrong(x: np.ndarray) -> np.ndarray:
    forces = forces_of_arrays(x)
    forces[..., 2] *= 0.5
    return forces


WRONG = [
    ("gradients", lambda x: -forces_of_arrays(x), "wrong sign"),
    ("kilocalories", lambda x: forces_of_arrays(x) / 4.184, r"0\.239 times.*units"),
    ("one coordinate", one_wrong, r"in coordinate 2 they are.*1 of 4"),
    ("too many", lambda x: np.ones((len(x), 5)), "12 numbers"),
    ("nothing", lambda x: None, "must return numbers, got NoneType"),
]


@pytest.mark.parametrize("case", WRONG, ids=by_name)
def test_wrong_forces_are_named(case: tuple) -> None:
    with pytest.raises(InputError, match=f"forces.*{case[2]}"):
        FunctionTarget.from_energy(of_arrays, 4, case[1])


def test_forces_are_compared_later_where_made_up_points_say_nothing() -> None:
    def narrow(x: np.ndarray) -> np.ndarray:
        inside = np.abs(x - 300).max(-1) < 1
        return np.where(inside, np.sum((x - 300) ** 2, -1), np.nan)

    target = FunctionTarget.from_energy(narrow, 2, lambda x: 2 * (x - 300))
    with pytest.raises(InputError, match="wrong sign"):
        target.log_prob_and_score(torch.tensor([[300.1, 299.8]]))
    with pytest.raises(InputError, match="wrong sign"):
        FunctionTarget.from_energy(narrow, 2, lambda x: 2 * (x - 300), points=[[300.1, 299.8]])


MISTAKES = [
    ("misspelt", lambda x: undefined_name, {}, NameError, "undefined_name"),  # noqa: F821
    ("LAPACK's", lambda x: np.linalg.inv(x), {}, np.linalg.LinAlgError, "square"),
    ("torch's", lambda x: torch.linalg.inv(x), {}, RuntimeError, "square"),
    ("both unsaid", both_of_arrays, {}, InputError, "forces=True"),
    ("both said only", of_arrays, {"forces": True}, InputError, "must return .energy, forces."),
    ("one at a time unsaid", lambda x: np.sum(x**2), {}, InputError, "batched=False"),
    ("one at a time unsaid, raising", lambda x: x.reshape(2, 2)[0, 0], {}, InputError, "batched=False"),
    ("many unsaid", lambda x: np.sum(x**2, axis=1), {"batched": False}, InputError, "batched=True"),
    ("no number", lambda x: "low", {"batched": False}, InputError, "got str"),
    ("no function", 3.0, {}, InputError, "energy must be a function"),
    ("no forces", of_arrays, {"forces": "yes"}, InputError, "forces must be"),
    ("no temperature", of_arrays, {"temperature": 0.0}, InputError, "temperature must be positive"),
    ("no number of workers", of_arrays, {"workers": -1}, InputError, "workers must be"),
    ("points of another dimension", of_arrays, {"points": [[1.0]]}, InputError, "points must have shape"),
]


@pytest.mark.parametrize("case", MISTAKES, ids=by_name)
def test_mistakes_are_told_when_the_target_is_made(case: tuple) -> None:
    _, energy, options, error, words = case
    with pytest.raises(error, match=words):
        FunctionTarget.from_energy(energy, 4, **options)


def right_half(x: np.ndarray) -> float:
    if x[0] < 0:
        raise ArithmeticError("did not converge")
    return 0.5 * float(np.sum(np.square(x)))


@pytest.mark.parametrize("workers", [0, 2])
def test_single_failures_are_counted_and_weigh_nothing(workers: int) -> None:
    counted = CountedTarget(FunctionTarget.from_energy(right_half, 2, batched=False, workers=workers))
    x = torch.tensor([[-1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [-3.0, 0.0]])
    with pytest.warns(UserWarning, match="ArithmeticError: did not converge"):
        log_prob = counted.log_prob(x)
    assert torch.equal(log_prob.isnan(), x[:, 0] < 0) and counted.num_invalid == 2
    assert counted.log_prob(x[[0, 3]]).isnan().all()  # it is known to answer elsewhere


@pytest.mark.parametrize("workers", [0, 2])
def test_a_first_batch_that_raises_as_a_whole_says_what(workers: int) -> None:
    points = [[1.0, 0.0]]
    target = FunctionTarget.from_energy(right_half, 2, batched=False, workers=workers, points=points)
    with pytest.raises(ArithmeticError, match="did not converge"):
        target.log_prob(torch.tensor([[-1.0, 0.0], [-2.0, 0.0]]))


def test_what_many_at_once_raise_ends_the_run() -> None:
    def strict(x: np.ndarray) -> np.ndarray:
        if (x > 50).any():
            raise ArithmeticError("did not converge")
        return np.sum(np.square(x), -1)

    target = FunctionTarget.from_energy(strict, 2)
    target.log_prob(torch.zeros(3, 2))
    with pytest.raises(ArithmeticError):
        target.log_prob(torch.tensor([[0.0, 0.0], [99.0, 0.0]]))


def test_declarations_are_those_of_function_targets() -> None:
    def positive_only(x: np.ndarray) -> np.ndarray:
        assert (x > 0).all()
        return np.sum(x - np.log(x), -1)

    gamma = FunctionTarget.from_energy(positive_only, 2, support=(0, math.inf), log_z=0.0, plot_range=(0.0, 5.0))
    assert (gamma.log_z, gamma.plot_range) == (0.0, (0.0, 5.0))
    assert FunctionTarget.from_energy(of_arrays, 4, periodic=True).space.is_periodic
    assert isinstance(FunctionTarget.from_energy(of_arrays, 4, space=Circle(4)).space, Circle)
    assert isinstance(FunctionTarget.from_energy(of_arrays, 6, mean_free=3).space, Particles)
    with pytest.raises(TypeError, match="perodic"):
        FunctionTarget.from_energy(of_arrays, 4, perodic=True)


def test_training_and_assessment_are_those_of_the_same_density_in_torch() -> None:
    def estimate(target: FunctionTarget) -> LogZEstimate:
        sampler = Sampler(target, grid=5)
        fit(sampler, max_steps=3, steps_per_epoch=3, batch_size=32, seed=0, enable_progress_bar=False)
        return assess(sampler, 200, seed=0).estimate

    outside = estimate(FunctionTarget.from_energy(of_arrays, 4, forces_of_arrays, TEMPERATURE, batched=False))
    inside = estimate(FunctionTarget(lambda x: closed_form(x)[0], 4))
    assert outside.log_z == pytest.approx(inside.log_z, abs=1e-6) and outside.ess == pytest.approx(inside.ess, abs=1e-6)


# ---- worker processes


def process_of_each(x: np.ndarray) -> float:
    return float(os.getpid()) if x[0] > 0 else float(np.square(x).sum())


def processes(target: FunctionTarget, n: int = 8) -> set[int]:
    return set((-target.log_prob(torch.ones(n, 2))).long().tolist())


def test_workers_stay_and_end_with_their_target() -> None:
    target = FunctionTarget.from_energy(process_of_each, 2, batched=False, workers=2)
    first = processes(target)
    assert len(first) == 2 and os.getpid() not in first and processes(target) == first
    twin = copy.deepcopy(target)
    assert not processes(twin) & first  # its own
    del target
    gc.collect()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in first) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in first)


@pytest.mark.slow
def test_workers_end_when_their_owner_is_killed() -> None:
    code = """
import os, signal, numpy as np, torch
from diffsampler import FunctionTarget
energy = lambda x: float(os.getpid()) if x[0] > 0 else float(np.square(x).sum())
target = FunctionTarget.from_energy(energy, 2, batched=False, workers=3, points=[[-1.0, 0.0]])
print(*(-target.log_prob(torch.ones(9, 2))).long().tolist(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    left = {int(pid) for pid in said.split()}
    assert len(left) == 3
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in left) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in left)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_dies_is_reported_and_replaced() -> None:
    main = os.getpid()

    def deadly(x: np.ndarray) -> float:
        if x[0] == 7 and os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(np.square(x).sum())

    target = FunctionTarget.from_energy(deadly, 2, batched=False, workers=2)
    x = torch.ones(6, 2)
    target.log_prob(x)
    x[4, 0] = 7
    with pytest.raises(InputError, match="died by signal SIGKILL"):
        target.log_prob(x)
    assert target.log_prob(torch.ones(6, 2)).eq(-2).all()


def test_errors_of_workers_that_cannot_be_sent_keep_their_words() -> None:
    class Local(Exception):
        pass

    def raises(x: np.ndarray) -> np.ndarray:
        if (x == 7).any():
            raise Local("words")
        return np.sum(np.square(x), -1)

    target = FunctionTarget.from_energy(raises, 2, workers=1)
    with pytest.raises(RuntimeError, match="Local: words"):
        target.log_prob(torch.full((3, 2), 7.0))
    assert target.log_prob(torch.ones(1, 2)) == -2  # answers still belong to their questions


@pytest.fixture
def spawning() -> None:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("spawning")
def test_functions_that_cannot_be_sent_are_named() -> None:
    target = FunctionTarget.from_energy(lambda x: np.sum(np.square(x)), 2, batched=False, workers=1)
    with pytest.raises(InputError, match="can be pickled.*no lambdas"):
        target.log_prob(torch.ones(3, 2))


@pytest.mark.slow
@pytest.mark.usefixtures("spawning")
def test_functions_at_the_top_of_a_file_are_sent() -> None:
    target = FunctionTarget.from_energy(of_arrays, 4, forces_of_arrays, workers=1)
    x = torch.randn(5, 4)
    torch.testing.assert_close(target.score(x), TEMPERATURE * closed_form(x)[1])


def test_targets_with_workers_are_pickled_without_them() -> None:
    target = FunctionTarget.from_energy(of_arrays, 4, forces_of_arrays, TEMPERATURE, workers=1)
    x = torch.randn(5, 4)
    target.log_prob(x)
    torch.testing.assert_close(pickle.loads(pickle.dumps(target)).log_prob(x), closed_form(x)[0])
