"""The probability flow against closed forms, and as a sampler of its own."""

import math
from functools import partial

import pytest
import torch
from helpers import (
    MILD,
    PROCESSES,
    ConstantControl,
    FoellmerControl,
    MixtureBridge,
    ProcessCase,
    ZeroControl,
    assert_mean,
    centred_gaussian,
    correlated_gaussian,
    gated,
    random_sampler,
    two_modes,
)

from diffsampler import InputError, Sampler
from diffsampler.coordinates import AffineCoordinates
from diffsampler.networks import FourierMLP
from diffsampler.paths import ProbabilityFlow
from diffsampler.processes import PinnedBrownian, Process, Torus, Underdamped, VarianceExploding, VariancePreserving
from targets import VonMisesMixture

SIGMA = [0.7, 1.6]


@pytest.mark.parametrize(
    "process",
    [
        partial(PinnedBrownian, sigma=SIGMA),
        partial(VariancePreserving, sigma=SIGMA),
        partial(VarianceExploding, sigma=SIGMA, noise_max=4.0),
    ],
    ids=lambda process: type(process).__name__,
)
def test_density_of_an_exact_process(process: Process, generator: torch.Generator) -> None:
    # The uncontrolled process ends in N(0, sigma^2).
    target = centred_gaussian(torch.tensor(SIGMA), log_z=0.0)
    sampler = Sampler(target, process, ZeroControl(), None, grid=4)
    x = torch.randn(64, 2, generator=generator) * torch.tensor(SIGMA)
    torch.testing.assert_close(sampler.log_prob(x, tolerance=1e-8), target.log_prob(x), rtol=0, atol=1e-5)
    drawn = ProbabilityFlow(sampler.dynamics, tolerance=1e-8).sample(64, generator)
    torch.testing.assert_close(drawn.log_prob, target.log_prob(drawn.x), rtol=0, atol=1e-5)
    assert (drawn.standard_error == 0).all()


@pytest.mark.slow
def test_density_of_an_exact_control(generator: torch.Generator) -> None:
    # The Foellmer control takes Brownian motion to a mixture.
    target, bridge = two_modes(), MixtureBridge(two_modes(), 1.3)
    sampler = Sampler(target, partial(PinnedBrownian, sigma=1.3), FoellmerControl(bridge), None, grid=4)
    x = target.sample(200, generator)
    torch.testing.assert_close(sampler.log_prob(x, tolerance=1e-8), target.log_prob(x), rtol=0, atol=1e-4)


def test_density_in_coordinates(generator: torch.Generator) -> None:
    # N(0, I) in coordinates z is N(loc, A A^T) outside.
    loc, matrix = torch.tensor([3.0, -1.0]), torch.tensor([[2.0, 0.0], [0.5, 0.3]])
    coordinates = AffineCoordinates(loc, matrix)
    sampler = Sampler(correlated_gaussian(), VariancePreserving, ZeroControl(), None, 4, coordinates)
    x = loc + torch.randn(32, 2, generator=generator) @ matrix.T
    normal = torch.distributions.MultivariateNormal(loc, scale_tril=matrix)
    torch.testing.assert_close(sampler.log_prob(x, tolerance=1e-8), normal.log_prob(x), rtol=0, atol=1e-5)


LIKE_OTHERS = ("VarianceExploding", "AnnealedLangevin", "PinnedBrownian")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [  # one of each class of process; what differs within a class is kernels, which have tests of their own
        pytest.param(case, id=case.name, marks=pytest.mark.slow if "-" in case.name or case.name in LIKE_OTHERS else ())
        for case in PROCESSES
    ],
)
def test_integrates_to_one_untrained(case: ProcessCase) -> None:
    # Whatever the networks it is a normalised density: the trapezoidal rule on a grid that holds all of it. What is
    # left is the solver's tolerance and the rule's error where random networks make the density rough.
    sampler = random_sampler(two_modes(), MILD, process=case.make(), control=FourierMLP, flow=None, grid=4)
    line = torch.arange(-8, 8, 0.4)
    density = sampler.log_prob(torch.cartesian_prod(line, line)).exp()
    assert abs(float(density.sum()) * 0.4**2 - 1) < 2e-3, case.name


@pytest.mark.slow
@pytest.mark.parametrize("control", [FourierMLP, pytest.param(gated, marks=pytest.mark.slow)])
def test_draws_and_densities_agree(control: object, generator: torch.Generator) -> None:
    sampler = random_sampler(two_modes(), MILD, control=control, flow=None, grid=4)
    # A clipped score has kinks, at which the solver's own error estimate is off.
    drawn = ProbabilityFlow(sampler.dynamics, tolerance=1e-8).sample(16, generator)
    torch.testing.assert_close(sampler.log_prob(drawn.x, tolerance=1e-8), drawn.log_prob, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_periodic_density_integrates_to_one() -> None:
    sampler = random_sampler(
        VonMisesMixture(1), 0.2, process=partial(Torus, sigma=1.4), control=FourierMLP, flow=None, grid=4
    )
    angles = torch.linspace(-math.pi, math.pi, 201)[:-1].unsqueeze(-1)
    density = sampler.log_prob(angles).exp()
    assert density.std() > 1e-3 and abs(float(density.mean()) * 2 * math.pi - 1) < 1e-4
    # Draws walk around the circle, and are within it all the same.
    assert ProbabilityFlow(sampler.dynamics).sample(50).x.abs().max() <= math.pi


@pytest.mark.slow
def test_weights_are_unbiased_untrained(generator: torch.Generator) -> None:
    # n = 600 draws of the flow, |z| < 4.5: a false alarm of 7e-6.
    target = correlated_gaussian()
    sampler = random_sampler(target, MILD, control=FourierMLP, flow=None, grid=4)
    drawn = ProbabilityFlow(sampler.dynamics).sample(600, generator)
    weight = (target.log_prob(drawn.x) - drawn.log_prob - target.log_z).exp()
    assert 0.01 < weight.var() < 5
    assert_mean(weight, 1.0, "E[w] / Z")
    estimate = sampler.estimate_log_z(600, seed=1, method="ode")
    assert abs(estimate.log_z - target.log_z) < 4.5 / 1.96 * (estimate.high - estimate.log_z)
    assert not any("estimates" in warning for warning in estimate.warnings)


@pytest.mark.slow
def test_hutchinson_knows_its_error(generator: torch.Generator) -> None:
    # 100 densities in 6 dimensions, by 4 probes and exactly: with its own standard error from 4 probes, an error is
    # t-distributed with 3 degrees of freedom. P(|t| > 5.84) = 1 %; more than 8 of 100 above has a chance of 1e-6.
    sampler = random_sampler(centred_gaussian(torch.ones(6)), 0.15, control=FourierMLP, flow=None, grid=4)
    x = torch.randn(100, 6, generator=generator)
    exact = sampler.log_prob(x)
    estimate, error = sampler.log_prob(x, seed=3, return_standard_error=True, num_probes=4)
    apart = error > 0  # 4 probes of 6 signs may be alike
    assert apart.sum() > 95 and error.mean() > 1e-3
    t = ((estimate - exact).abs() / error)[apart]
    assert int((t > 5.84).sum()) <= 8
    again = [sampler.log_prob(x[:5], seed=3, num_probes=4) for _ in range(2)]
    assert torch.equal(*again)


def test_an_estimated_trace_is_said() -> None:
    sampler = random_sampler(centred_gaussian(torch.ones(17)), MILD, control=FourierMLP, flow=None, grid=4)
    assert any("estimates, with standard errors" in text for text in sampler.estimate_log_z(50, method="ode").warnings)


@pytest.mark.slow
def test_single_precision_agrees_with_double(generator: torch.Generator) -> None:
    sampler = random_sampler(two_modes(), MILD, control=FourierMLP, flow=None, grid=4)
    x = two_modes().sample(64, generator)
    double = sampler.log_prob(x)
    torch.testing.assert_close(sampler.float().log_prob(x.float()), double, rtol=0, atol=2e-3)


def test_inference_mode_does_not_hinder(generator: torch.Generator) -> None:
    sampler = Sampler(
        correlated_gaussian(), partial(PinnedBrownian, sigma=1.3), ConstantControl([0.1, 0.2]), None, grid=4
    )
    x = torch.randn(4, 2, generator=generator)
    with torch.inference_mode():
        inside = sampler.log_prob(x)
    torch.testing.assert_close(inside, sampler.log_prob(x))


def test_refuses_in_words() -> None:
    sampler = Sampler(correlated_gaussian(), Underdamped, FourierMLP, None, grid=4)
    with pytest.raises(InputError, match="Underdamped walks in momenta too.*Use another process"):
        sampler.log_prob(torch.zeros(3, 2))
    with pytest.raises(InputError, match=r"points with shape \(B, 2\), got shape \(2,\)"):
        sampler.log_prob(torch.zeros(2))
    with pytest.raises(InputError, match="x must be finite, got 1 points that are not"):
        Sampler(correlated_gaussian(), grid=4).log_prob(torch.tensor([[0.0, 0.0], [1.0, math.nan]]))
    assert Sampler(correlated_gaussian(), grid=4).log_prob(torch.zeros(0, 2)).shape == (0,)
    with pytest.raises(InputError, match=r"x must be a tensor with shape \(B, 2\), got ndarray"):
        Sampler(correlated_gaussian(), grid=4).log_prob(torch.zeros(3, 2).numpy())
    sampler, x = Sampler(correlated_gaussian(), grid=4), torch.tensor([[1, 0], [0, 2]])
    assert torch.equal(sampler.log_prob(x), sampler.log_prob(x.double()))
    with pytest.raises(InputError, match="num_probes must be"):
        Sampler(correlated_gaussian(), grid=4).log_prob(torch.zeros(3, 2), num_probes=1)
