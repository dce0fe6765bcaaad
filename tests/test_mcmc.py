"""Markov chains: they leave the target unchanged, find their step size, and survive holes in the density."""

import math
from collections.abc import Callable

import pytest
import torch
from helpers import Z_BOUND, by_name, correlated_gaussian, two_modes

from diffsampler import FunctionTarget, InputError
from diffsampler.baseline.mcmc import HMC, MALA, MarkovChain
from diffsampler.baseline.moves import TargetPath
from diffsampler.counted import CountedTarget

CHAINS: list[tuple[str, Callable[[float], MarkovChain]]] = [
    ("MALA", MALA),
    ("HMC", lambda step_size: HMC(step_size, num_leapfrog=3)),
]
every_chain = pytest.mark.parametrize("case", CHAINS, ids=by_name)


@every_chain
def test_leaves_the_target_unchanged(case: tuple, generator: torch.Generator) -> None:
    # 20000 exact samples of an asymmetric mixture, ten moves at a fixed step of middling acceptance: seven moments
    # stay where exact samples have them. Differences of paired samples; |z| < 4.5, 5e-5 in all.
    target = CountedTarget(two_modes())
    start = target.density.user_target.sample(20_000, generator)
    state, chain = TargetPath(target).at(start), case[1](0.9)
    rates = []
    for _ in range(10):
        state, rate = chain.step(target, state, generator, adapt=False)
        rates.append(rate)
    assert 0.2 < sum(rates) / 10 < 0.9, rates
    assert chain.step_size == 0.9
    assert (state.x != start).any(-1).double().mean() > 0.8

    def moments(x: torch.Tensor) -> torch.Tensor:
        first, second = x.unbind(-1)
        return torch.stack([first, second, first**2, second**2, first * second, first**3, (first > 0).double()])

    difference = moments(state.x) - moments(start)
    z = difference.mean(1) / (difference.std(1) / math.sqrt(20_000))
    assert z.abs().max() < Z_BOUND, f"{case[0]}: {z}"
    log_prob, score = target.log_prob_and_score(state.x)
    torch.testing.assert_close(state.log_prob, log_prob)
    torch.testing.assert_close(state.score, score)


@every_chain
def test_reaches_the_target_from_afar(case: tuple, generator: torch.Generator) -> None:
    # 2000 chains of 300 moves from a point; their mean and covariance against the exact ones, 4.5 standard errors.
    target = correlated_gaussian()
    chain = case[1](0.05)
    state = TargetPath(CountedTarget(target)).at(torch.full((2000, 2), 3.0))
    for k in range(300):
        state, rate = chain.step(CountedTarget(target), state, generator, adapt=k < 150)
    assert abs(rate - chain.target_acceptance) < 0.1, case[0]
    error = (target.gaussian.factor @ target.gaussian.factor.T).diagonal().sqrt() / math.sqrt(2000)
    assert ((state.x.mean(0) - target.gaussian.mean).abs() < Z_BOUND * error).all(), case[0]


@every_chain
def test_never_enters_zero_density(case: tuple, generator: torch.Generator) -> None:
    target = CountedTarget(FunctionTarget(lambda x: torch.where(x[..., 0] > 0, -x.square().sum(-1), -math.inf), dim=2))
    state, chain = TargetPath(target).at(torch.full((50, 2), 0.3)), case[1](0.8)
    for _ in range(30):
        state, _ = chain.step(target, state, generator)
    assert (state.x[:, 0] > 0).all() and state.log_prob.isfinite().all() and state.x.isfinite().all()


def test_refuses_bad_arguments() -> None:
    for make in (lambda: MALA(step_size=0.0), lambda: HMC(num_leapfrog=0), lambda: MALA(target_acceptance=1.0)):
        with pytest.raises(InputError, match="step_size|num_leapfrog|target_acceptance"):
            make()
