"""DW-4 and Lennard-Jones clusters: exact log Z and means, exact draws, symmetries.

Statistical tests allow 6 standard errors of a mean of exact draws, 2e-9 each under the central limit theorem.
"""

import math

import numpy as np
import pytest
import torch

from diffsampler.observables import estimate_observable
from targets import DoubleWell4, LennardJones, MuellerBrown


def test_log_z_and_means_of_dw_4() -> None:
    # Found twice, independently of this code, with grids of 0.05 to 0.1 (log Z) and by differences in temperature.
    target = DoubleWell4()
    assert target.log_z == pytest.approx(29.6672322329, abs=1e-9)
    exact = target.exact_observables
    assert exact["energy"] == pytest.approx(-22.541508, abs=1e-5)
    assert exact["pair_distance"] == pytest.approx(4.044987, abs=1e-6)


def test_log_z_of_dw_4_by_importance_weights(generator: torch.Generator) -> None:
    # Nothing in common with the quadrature but the convention: stars around the first particle whose distances have
    # the density w(r) on a grid, in coordinates x_i - x_1 = z (n^(d / 2) of the volume of mean-free z).
    target, n = DoubleWell4(), 200_000
    r = torch.linspace(0.005, 7.995, 800)
    log_w = -(0.9 * (r - 4) ** 4 - 4 * (r - 4) ** 2)
    cell = torch.multinomial(log_w.softmax(0), 3 * n, replacement=True, generator=generator)
    distance = (r[cell] + 0.01 * (torch.rand(3 * n, generator=generator) - 0.5)).reshape(n, 3)
    angle = 2 * math.pi * torch.rand(n, 3, generator=generator)
    others = torch.stack([distance * angle.cos(), distance * angle.sin()], -1)
    x = torch.cat([torch.zeros(n, 1, 2), others], 1).flatten(-2)
    log_density = (log_w.log_softmax(0)[cell].reshape(n, 3) - math.log(0.01) - (2 * math.pi * distance).log()).sum(-1)
    weights = (target.log_prob(x) - log_density - math.log(4) - target.log_z).exp()
    error = float(weights.std()) / n**0.5
    assert error < 0.05 and abs(float(weights.mean()) - 1) < 6 * error


@pytest.mark.slow
def test_exact_draws_of_dw_4_have_the_exact_means(generator: torch.Generator) -> None:
    target, n = DoubleWell4(), 10_000
    x = target.sample(n, generator)
    assert x.reshape(n, 4, 2).mean(1).abs().max() < 1e-12
    for name, exact in target.exact_observables.items():
        values = target.observables[name](x)
        assert abs(float(values.mean()) - exact) < 6 * float(values.std()) / n**0.5, name
    # E[x . score] = -6 in the six dimensions; particles and directions are alike.
    stein = (x * target.score(x)).sum(-1) + 6
    assert abs(float(stein.mean())) < 6 * float(stein.std()) / n**0.5
    squares = x.square()
    bound = 6 * squares.std(0) / n**0.5
    assert ((squares.mean(0) - squares.mean()).abs() < 1.1 * bound).all()


def test_histogram_of_pair_distances(generator: torch.Generator) -> None:
    target, n = DoubleWell4(), 10_000
    shares = target.observables["pair_distance_histogram"](target.sample(n, generator))
    assert shares.shape == (n, len(target.distance_edges) - 1)
    torch.testing.assert_close(shares.sum(-1), torch.ones(n))
    # P(d < 4) = 0.494024, found independently of this code
    below = shares[:, : target.distance_edges.index(4.0)].sum(-1)
    assert abs(float(below.mean()) - 0.494024) < 6 * float(below.std()) / n**0.5


def test_log_z_of_two_lennard_jones_particles() -> None:
    # z = (x_1 - x_2) / 2^(1/2) in R^3: a radial integral, by hand and through the space.
    target = LennardJones(2, 3, trap=1.5)
    step = 1e-3
    radius = step * torch.arange(1, 12_000)
    z = torch.stack([radius, torch.zeros_like(radius), torch.zeros_like(radius)], -1)
    radial = target.log_prob(target.space.to_target(z)) + (4 * math.pi * radius**2).log()
    # d = 2^(1/2) |z|; -2 epsilon (d^-12 - 2 d^-6) - trap d^2 / 4
    d = np.arange(0.2, 14, 1e-4)
    integrand = 4 * math.pi * d**2 / 2**1.5 * np.exp(-2 * (d**-12 - 2 * d**-6) - 1.5 * d**2 / 4)
    expected = math.log(integrand.sum() * 1e-4)
    assert float(radial.logsumexp(0)) + math.log(step) == pytest.approx(expected, abs=1e-6)


def test_lennard_jones_at_two_and_three_particles() -> None:
    # The minimum of a pair is -2 epsilon, each pair twice; three of them make a triangle of that side.
    side = 2.0
    triangle = torch.tensor([[0.0, 0.0], [side, 0.0], [side / 2, side * 3**0.5 / 2]]).flatten()
    target = LennardJones(3, 2, epsilon=1.5, radius=side, trap=1e-9)
    assert float(target.log_prob(triangle)) == pytest.approx(3 * 2 * 1.5, abs=1e-7)
    assert target.score(triangle).abs().max() < 1e-6


def test_particles_that_coincide_have_no_density() -> None:
    target = LennardJones(3, 3)
    x = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    assert target.log_prob(x) == -math.inf and target.log_prob_and_score(x)[0] == -math.inf
    x[3] = 1e-3
    assert float(target.log_prob(x)) < -1e30 and target.score(x).isfinite().all()
    # DW-4 is finite there, and so is its score.
    log_prob, score = DoubleWell4().log_prob_and_score(torch.tensor([0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 4.0]))
    assert log_prob.isfinite() and score.isfinite().all()


@pytest.mark.parametrize("target", [DoubleWell4(), LennardJones(13), LennardJones(5, 2)], ids=repr)
def test_symmetries(target: DoubleWell4 | LennardJones, generator: torch.Generator) -> None:
    x = 3 * torch.randn(20, target.dim, generator=generator)
    log_prob, score = target.log_prob_and_score(x)
    moved = target.space.image(x, generator)
    assert (moved - x).abs().amax(-1).min() > 0.01
    torch.testing.assert_close(target.log_prob(moved), log_prob, rtol=1e-9, atol=1e-9)
    shifted = (x.unflatten(-1, (target.num_particles, -1)) + torch.arange(target.dimension)).flatten(-2)
    torch.testing.assert_close(target.log_prob(shifted), log_prob, rtol=1e-9, atol=1e-9)
    total = score.unflatten(-1, (target.num_particles, -1)).sum(-2)
    assert (total.abs() <= 1e-9 * score.abs().amax(-1, keepdim=True)).all()


def test_observables_of_particles() -> None:
    target = LennardJones(3, 2)
    x = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0, 2.0]])
    values = {name: f(x) for name, f in target.observables.items()}
    assert values["energy"] == -target.log_prob(x) and values["energy_squared"] == target.log_prob(x) ** 2
    assert float(values["pair_distance"]) == pytest.approx((1 + 2 + 5**0.5) / 3)
    found = values["pair_distance_histogram"][0].nonzero().flatten().tolist()
    assert [target.distance_edges[k] for k in found] == [1.0, 2.0, 2.2]
    both = torch.cat([x, 0.9 * x])
    of_both = {name: estimate_observable(name, f, both) for name, f in target.observables.items()}
    energies = target.energy(both)
    expected = float((energies[0] - energies[1]).square() / 4)  # the variance of two values
    assert float(of_both["heat_capacity"].value) == pytest.approx(expected)
    shares = of_both["pair_distance_histogram"]
    assert shares.to_dict()["edges"] == pytest.approx(target.distance_edges)
    assert len(shares.value) == len(target.distance_edges) - 1 and float(shares.value.sum()) == pytest.approx(1.0)


@pytest.mark.slow
def test_exact_heat_capacity_of_mueller_brown() -> None:
    # C = beta^2 d^2 log Z / d beta^2: differences of an integral of its own.
    beta, step = 0.05, 1e-3
    lower, here, higher = (MuellerBrown(beta + sign * step).log_z for sign in (-1, 0, 1))
    expected = beta**2 * (higher - 2 * here + lower) / step**2
    target = MuellerBrown(beta)
    assert "heat_capacity" in target.observables
    assert target.exact_observables["heat_capacity"] == pytest.approx(expected, rel=1e-3)
