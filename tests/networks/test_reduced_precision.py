"""Networks in bfloat16, densities in full precision."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import correlated_gaussian, randomise, seeded

from diffsampler import InputError, Sampler, fit
from diffsampler.networks import (
    Control,
    FourierMLP,
    LangevinControl,
    LatticeConvolutions,
    LearnedVariance,
    PairForces,
    ReducedPrecision,
)
from diffsampler.paths import evaluate, rollout
from diffsampler.processes import VariancePreserving
from diffsampler.spaces import Lattice, Particles, Space


@pytest.fixture(autouse=True)
def single_precision() -> None:
    torch.set_default_dtype(torch.float32)


def trained(network: object, **parts: object) -> Sampler:
    torch.manual_seed(0)
    sampler = Sampler(correlated_gaussian(), control=partial(LangevinControl, network=network), grid=10, **parts)
    with torch.no_grad():
        for parameter in sampler.policy.control.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return sampler


def test_products_are_rounded_and_controls_are_not() -> None:
    network = ReducedPrecision(2)
    with torch.no_grad():
        network.network.perceptron.output.weight.normal_()
    x, embedding = torch.randn(50, 2), network.embed(torch.tensor([0.3]))[0]
    control, exact = network(embedding, x), network.network(embedding, x)
    assert control.dtype == torch.float32 and not torch.equal(control, exact)
    # bfloat16 has eight bits: 0.4 % a rounding, of some ten along the way, and cancellation in sums of 64.
    assert (control - exact).abs().max() < 0.05 * exact.abs().max()


def test_weights_of_a_rollout_are_exact_and_evaluated_again_near() -> None:
    reduced, plain = trained(ReducedPrecision), trained(FourierMLP)
    log_z = correlated_gaussian().log_z
    estimate = reduced.estimate_log_z(20_000, seed=0)
    # A false alarm in 7e-6: the rounded control is a control like any other.
    assert abs(estimate.log_z - log_z) < 4.5 / 1.96 * (estimate.high - estimate.log_z), estimate
    path = rollout(reduced.dynamics, 2000, seeded(1))
    again = evaluate(reduced.dynamics, path).log_weight
    walked = reduced.weighted_draws(2000, seeded(1))[1]
    assert (again - walked).abs().max() < 0.05
    assert not torch.equal(plain.sample(20, seed=0), reduced.sample(20, seed=0))


def test_trains_with_widths_too() -> None:
    torch.manual_seed(0)
    control = partial(ReducedPrecision, network=partial(LearnedVariance, network=FourierMLP))
    sampler = Sampler(correlated_gaussian(), control=control, grid=5)
    history = fit(sampler, max_steps=4, steps_per_epoch=2, enable_progress_bar=False, accelerator="cpu")
    assert history[-1]["elbo"] is not None and sampler.policy.control.learns_width


def test_autocast_of_everything_is_refused() -> None:
    for precision in ("bf16-mixed", "bf16-true"):
        with pytest.raises(InputError, match=f"trainer.precision must be 32-true or 64-true, got {precision}.*Reduced"):
            fit(Sampler(correlated_gaussian(), grid=3), max_steps=1, precision=precision, accelerator="cpu")


@pytest.mark.parametrize(
    ("network", "space"),
    [(PairForces, Particles(5, 3)), (LatticeConvolutions, Lattice((4, 4)))],
    ids=lambda one: repr(one),
)
def test_networks_of_spaces_are_rounded_too(network: Callable[[Space], Control], space: Space) -> None:
    torch.manual_seed(0)
    reduced = ReducedPrecision(VariancePreserving(space), network)
    randomise(reduced, 0.1)
    x = torch.randn(20, space.dim, generator=seeded(0))
    embedding = reduced.embed(torch.tensor(0.7))
    control, exact = reduced(embedding, x), reduced.network(embedding, x)
    assert control.dtype == torch.float32 and not torch.equal(control, exact)
    assert (control - exact).abs().max() < 0.1 * exact.abs().max()
