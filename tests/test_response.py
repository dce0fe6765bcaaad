"""Target and control of a rollout's steps, compiled."""

import copy
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.networks import FourierMLP
from diffsampler.paths import evaluate, rollout
from targets import Funnel

ROOT = Path(__file__).parents[1]
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def by_autograd() -> FunctionTarget:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[..., 0] > 1.5, math.nan, -x.square().sum(-1) - x[..., 0].cos())

    return FunctionTarget(fn, dim=3)


def pair(target, **parts) -> tuple[Sampler, Sampler]:
    torch.manual_seed(0)
    plain, compiled = Sampler(target, grid=6, **parts), Sampler(target, grid=6, compile=True, **parts)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    compiled.load_state_dict(plain.state_dict())
    return plain, compiled


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        pytest.param(Funnel(), {}, id="closed form", marks=pytest.mark.slow),
        pytest.param(by_autograd(), {}, id="autograd", marks=pytest.mark.slow),
        pytest.param(Funnel(4), {"control": FourierMLP, "flow": None}, id="no score", marks=pytest.mark.slow),
    ],
)
def test_compiled_rollouts_are_the_plain_ones(target, parts) -> None:
    plain, compiled = pair(target, **parts)
    for n in (16, 40):  # the second by a kernel for any size
        paths = [rollout(sampler.dynamics, n, torch.Generator().manual_seed(1)) for sampler in (plain, compiled)]
        # Rounding of a step, 1e-7 relative, grows over six steps by no more than the control's slope allows.
        torch.testing.assert_close(paths[0].x, paths[1].x, rtol=1e-4, atol=1e-5)
        if paths[0].score is not None:
            torch.testing.assert_close(paths[0].score, paths[1].score, rtol=1e-3, atol=1e-4, equal_nan=True)
        draws = [sampler.sample(n, seed=2, return_log_weights=True)[1] for sampler in (plain, compiled)]
        torch.testing.assert_close(*draws, rtol=1e-4, atol=1e-3, equal_nan=True)
    assert compiled._respond.is_compiled
    assert plain.num_target_evaluations == compiled.num_target_evaluations > 0
    assert plain.counter.num_invalid == compiled.counter.num_invalid
    assert (plain.counter.num_invalid > 0) == isinstance(target, FunctionTarget)


@pytest.mark.slow  # the fast suite compiles once
def test_a_compiled_sampler_trains_and_is_copied() -> None:
    _, compiled = pair(Funnel(3))
    history = fit(compiled, max_steps=3, batch_size=16, num_eval_samples=50, steps_per_epoch=3, **QUIET)
    assert len(history) == 1 and history[0]["log_z"] is not None
    draws = compiled.sample(5, seed=0)
    for twin in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert not twin._respond.is_compiled
        torch.testing.assert_close(twin.sample(5, seed=0), draws)


@pytest.mark.slow  # a dozen compilations
def test_many_samplers_and_a_drift_that_is_replaced() -> None:
    # torch gives up after eight compilations of one function.
    samplers = [Sampler(Funnel(dim), grid=2, compile=True) for dim in range(2, 14)]
    for sampler in samplers:
        sampler.sample(3, seed=0)
    assert all(sampler._respond.is_compiled for sampler in samplers)
    assert len({id(sampler._respond._chosen) for sampler in samplers}) == len(samplers)
    plain, compiled = pair(Funnel(3))
    for sampler in (plain, compiled):
        sampler.sample(3, seed=0)
        torch.manual_seed(3)
        sampler.policy.control = FourierMLP(3)
        with torch.no_grad():
            sampler.policy.control.perceptron.output.weight.normal_()
        path = rollout(sampler.dynamics, 5, torch.Generator().manual_seed(1))
        weights = sampler.weighted_draws(5, torch.Generator().manual_seed(1))[1]
        torch.testing.assert_close(evaluate(sampler.dynamics, path).log_weight, weights, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_without_a_compiler_it_goes_on_eagerly(tmp_path) -> None:
    script = tmp_path / "no_compiler.py"
    script.write_text(
        "import torch\nfrom diffsampler import Sampler\nfrom targets import Funnel\n"
        "torch.manual_seed(0); plain = Sampler(Funnel(3), grid=4)\n"
        "torch.manual_seed(0); compiled = Sampler(Funnel(3), grid=4, compile=True)\n"
        "assert torch.equal(plain.sample(9, seed=1), compiled.sample(9, seed=1))\n"
        "assert plain.num_target_evaluations == compiled.num_target_evaluations\n"
        "assert not compiled._respond.is_compiled\n"
    )
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = str(ROOT)
    result = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "compile=True has failed" in result.stderr


def test_what_the_target_raises_is_not_hidden() -> None:
    target = FunctionTarget(lambda x: -(x[..., 5] ** 2), dim=2)
    with pytest.raises(IndexError):
        Sampler(target, grid=3, compile=True).sample(4, seed=0)
