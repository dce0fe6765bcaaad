"""The plain reference on spaces, against exact log Z.

Bounds are 6 of the standard errors that it claims. Over 20 seeds each, deviations in such errors had a standard
deviation of 0.8 to 1.4, so that another seed fails with a chance below 1e-4. Each case says how large an error may be:
conventions that are off by the logarithm of a small number do not pass.
"""

import math
from collections.abc import Callable

import pytest
import torch
from on_spaces import angles_beside_a_real, centred, pair_distances, springs, two_angles, two_fields
from torch import Tensor

from diffsampler import FunctionTarget, InputError, Target
from diffsampler.baseline import Replicates, reference
from diffsampler.spaces import Circle, Euclidean, Lattice, Particles, Product
from targets import DoubleWell4, LennardJones, Phi4, U1Gauge, XYModel

BOUND = 6.0


def searched(target: Target, num_particles: int = 300, max_evaluations: int = 60_000, seed: int = 0) -> Replicates:
    return reference(target, num_particles, seed=seed, max_evaluations=max_evaluations)


def standard_error(found: Replicates) -> float:
    return (found.estimate.high - found.estimate.low) / 3.92


def assert_exact(found: Replicates, log_z: float, largest_error: float) -> None:
    error = standard_error(found)
    assert error < largest_error and abs(found.estimate.log_z - log_z) < BOUND * max(error, 1e-12), (
        found.estimate.log_z,
        log_z,
        error,
    )


def lennard_jones_pair() -> LennardJones:
    """Two particles in space; log Z by a radial integral, as in tests/targets/test_particles.py."""
    target = LennardJones(2, 3, trap=1.5)
    d = torch.arange(0.2, 14, 1e-3).double()
    log_integrand = math.log(4 * math.pi) + 2 * d.log() - 1.5 * math.log(2) - 2 * (d**-12 - 2 * d**-6) - 1.5 * d**2 / 4
    target.log_z = float(log_integrand.logsumexp(0)) + math.log(1e-3)
    return target


def lennard_jones_line() -> LennardJones:
    """Three particles on a line, by quadrature of the two coordinates of mean 0."""
    target = LennardJones(3, 1)
    line = torch.arange(-8, 8, 0.02).double() + 0.005
    z = torch.cartesian_prod(line, line)
    target.log_z = float(target.log_prob(target.space.to_target(z)).logsumexp(0)) + 2 * math.log(0.02)
    return target


def repelling(x: Tensor) -> Tensor:
    """Three particles on a line that repel, and are held together by a quartic trap alone."""
    return -2 * (1 / pair_distances(x, 3)).sum(-1) - 0.1 * centred(x, 3).pow(4).sum((-1, -2))


def repelling_in_a_trap() -> FunctionTarget:
    space = Particles(3, 1)
    line = torch.arange(-8, 8, 0.02).double() + 0.005
    log_prob = repelling(space.to_target(torch.cartesian_prod(line, line)))
    return FunctionTarget(repelling, 3, log_z=float(log_prob.logsumexp(0)) + 2 * math.log(0.02), mean_free=3)


EXACT: dict[str, tuple[Callable[[], Target], float]] = {
    "springs in the plane": (springs, 0.05),
    "springs of two in space": (lambda: springs(2, 3), 0.05),
    "springs of six on a line": (lambda: springs(6, 1), 0.08),
    "springs, of scale 1e-3": (lambda: springs(scale=1e-3), 0.05),
    "springs, of scale 1e3": (lambda: springs(scale=1e3), 0.05),
    "springs that have names": (lambda: springs(space=Particles(3, 2, identical=False, isotropic=False)), 0.05),
    "LJ, two": (lennard_jones_pair, 0.08),
    "LJ, three on a line": (lennard_jones_line, 0.2),
    "repelling in a trap": (repelling_in_a_trap, 0.1),
    "two angles": (two_angles, 0.08),
    "U(1)": (lambda: U1Gauge((2, 2), 2.0), 0.12),
    "XY": (lambda: XYModel((4,), 1.0), 0.08),
    "a constant on angles": (
        lambda: FunctionTarget(lambda x: 0 * x.sum(-1) + 3, 2, 3 + 2 * math.log(2 * math.pi), periodic=True),
        1e-9,
    ),
    "angles and a real": (angles_beside_a_real, 0.12),
    "angles and a real of scale 1e-3": (lambda: angles_beside_a_real(1e-3), 0.12),
    "angles and a real of scale 1e3": (lambda: angles_beside_a_real(1e3), 0.12),
    "two fields": (two_fields, 0.06),
    "phi^4": (lambda: Phi4((4, 4)), 0.1),
}


@pytest.mark.parametrize("name", EXACT)
def test_log_z_is_exact(name: str) -> None:
    make, largest_error = EXACT[name]
    target = make()
    found = searched(target)
    assert_exact(found, target.log_z, largest_error)
    assert found.x.shape[1] == target.dim
    torch.testing.assert_close(target.log_prob(found.x), found.log_prob, rtol=1e-7, atol=1e-7)
    assert found.estimate.num_target_evaluations < 300_000


def test_dw_4() -> None:
    assert_exact(searched(DoubleWell4(), 500), 29.6672322329, 0.12)


def test_u_1_on_a_larger_lattice() -> None:
    target = U1Gauge((4, 4), 2.0)
    found = searched(target, 500)
    assert_exact(found, target.log_z, 0.15)
    # Angles are wrapped, and draws have the exact mean of the plaquette: 1500 chains of SMC, of unknown correlation.
    assert found.x.abs().max() <= math.pi
    plaquette = target.observables["plaquette"](found.x).mean()
    assert abs(float(plaquette) - target.exact_observables["plaquette"]) < 0.02


def test_particles_beside_an_angle() -> None:
    # A mean-free part of a product: log Z is the sum of theirs.
    cluster, angle = springs(), two_angles()
    target = FunctionTarget(
        lambda x: cluster.log_prob(x[..., :6]) + angle.log_prob(x[..., 6:]),
        8,
        space=Product([Particles(3, 2), Circle(2)]),
    )
    found = searched(target)
    assert_exact(found, cluster.log_z + angle.log_z, 0.1)
    assert found.x[:, :6].view(-1, 3, 2).mean(1).abs().max() < 1e-9 and found.x[:, 6:].abs().max() <= math.pi


@pytest.mark.parametrize(
    "make", [springs, lambda **more: angles_beside_a_real(differentiable=False)], ids=["particles", "angles"]
)
def test_without_a_gradient(make: Callable[[], FunctionTarget]) -> None:
    target = make()
    without = FunctionTarget(
        lambda x: torch.as_tensor(target.fn(x.detach()).numpy()), target.dim, differentiable=False, space=target.space
    )
    assert_exact(searched(without), target.log_z, 0.12)


def test_draws_are_those_of_the_density() -> None:
    # E|z|^2 = (n - 1) d / n for springs; particles, axes and the sign of each are alike. 900 draws of chains that mix
    # within a rung: 6 standard errors of independent ones.
    found = searched(springs())
    values = found.x.square().sum(-1)
    assert abs(float(values.mean()) - 4 / 3) < 6 * float(values.std()) / len(values) ** 0.5
    squares = found.x.square()
    assert ((squares.mean(0) - 2 / 9).abs() < 6 * squares.std(0) / len(squares) ** 0.5).all()


def test_the_seed_decides_and_nothing_else_does() -> None:
    torch.manual_seed(1)
    first, state = searched(springs(), 100, 20_000), torch.get_rng_state()
    torch.manual_seed(2)
    again, other = searched(springs(), 100, 20_000), searched(springs(), 100, 20_000, seed=1)
    assert torch.equal(first.x, again.x) and first.estimate == again.estimate
    assert first.estimate.log_z != other.estimate.log_z
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_max_evaluations_ends_it() -> None:
    few, more = searched(springs(), 100, 1000), searched(springs(), 100, 60_000)
    assert len(few.log_zs) == 1 < len(more.log_zs)
    assert few.estimate.num_target_evaluations < 60_000


def test_too_few_particles_say_so() -> None:
    found = searched(U1Gauge((4, 4), 4.0), 100, 1000)
    assert found.estimate.high == math.inf
    assert any("descend from too few" in warning for warning in found.estimate.warnings)


def where(inside: Tensor, log_prob: Tensor) -> Tensor:
    return torch.where(inside, log_prob, math.nan)


def test_nan_in_a_region_is_counted() -> None:
    # Two particles that are never within 1: |z| > 2^(-1/2), of a normal in the plane of variance 1/2.
    target = FunctionTarget(
        lambda x: where(pair_distances(x, 2)[..., 0] > 1, springs(2, 2).log_prob(x)), 4, mean_free=2
    )
    found = searched(target)
    assert_exact(found, springs(2, 2).log_z - 0.5, 0.08)
    assert any("log_prob was NaN or +inf" in warning for warning in found.estimate.warnings)


def zero(x: Tensor) -> Tensor:
    return 0 * x.sum(-1) - math.inf


REFUSED: dict[str, tuple[FunctionTarget, str]] = {
    "zero, particles": (FunctionTarget(zero, 6, mean_free=3), "zero density, or no number, at all .* scale 0.001"),
    "zero, angles": (FunctionTarget(zero, 2, periodic=True), "zero density, or no number, at all points that were tr"),
    "zero, both": (FunctionTarget(zero, 2, periodic=[0]), "zero density, or no number, at all"),
    "NaN": (FunctionTarget(lambda x: x.sum(-1) * math.nan, 2, periodic=True), "zero density, or no number, at all"),
    "flat beside an angle": (
        FunctionTarget(lambda x: x[..., 0].cos() - 0 * x[..., 1], 2, periodic=[0]),
        "stays at .* in every direction",
    ),
    "flat, and named as it is in x": (
        FunctionTarget(lambda x: x[..., 0].cos() - x[..., 1] ** 2 + 0 * x[..., 2], 3, periodic=[0]),
        r"stays at .* along x\[2\]",
    ),
    "another angle": (
        FunctionTarget(lambda x: x[..., 0].cos() - x[..., 1] ** 2 + x[..., 2].cos(), 3, periodic=[0]),
        r"x\[2\] has period 6.283",
    ),
    "a heavy tail beside an angle": (
        FunctionTarget(lambda x: x[..., 1].cos() - x[..., 0].square().log1p() / 2, 2, periodic=[1]),
        "falls too slowly in every direction",
    ),
    "particles that fly apart": (
        FunctionTarget(lambda x: -2 * pair_distances(x, 3).pow(-6).sum(-1), 6, mean_free=3),
        "stays at .* as particles fly apart, .* no integral: add a trap or a wall",
    ),
    "fields that shift": (
        FunctionTarget(lambda x: -(x - x.roll(1, -1)).square().sum(-1), 5, space=Lattice((5,))),
        "translation of all coordinates alike",
    ),
    "angles as fields": (
        FunctionTarget(lambda x: (x - x.roll(1, -1)).cos().sum(-1), 5, space=Lattice((5,))),
        r"have period 6.283.*say so by space=Lattice\(\(5,\), Circle\(1\)\)",
    ),
    "a random energy": (
        FunctionTarget(lambda x: -x.square().sum(-1) + 0.1 * torch.randn(len(x)), 3, space=Lattice((3,))),
        "log_prob is random",
    ),
    "an energy": (
        FunctionTarget(lambda x: centred(x, 3).square().sum((-1, -2)), 6, mean_free=3),
        "rises without bound as particles fly apart.*if it is an energy return minus that",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_by_name(name: str) -> None:
    target, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        searched(target)


def test_a_real_whose_density_is_zero_for_some_angles_is_looked_at_for_others() -> None:
    # At half of the angles there is no density at all; at the rest, none has an integral over the real.
    target = FunctionTarget(lambda x: torch.where(x[..., 0].cos() > 0.5, 0 * x[..., 1], -math.inf), 2, periodic=[0])
    with pytest.raises(InputError, match="stays at 0 in every direction"):
        searched(target)


def test_euclidean_spaces_are_searched_as_ever() -> None:
    # Declared, R^D is no other target than undeclared.
    def log_prob(x: Tensor) -> Tensor:
        return -0.5 * x.square().sum(-1)

    first, declared = (searched(FunctionTarget(log_prob, 2, space=space), 100, 1000) for space in (None, Euclidean(2)))
    assert torch.equal(first.x, declared.x)


def test_it_cools_as_slowly_as_it_is_told() -> None:
    target = Phi4((3, 3), -4.0, 6.975)
    usual, slow = (
        reference(target, 100, seed=0, max_evaluations=1, ess_threshold=threshold) for threshold in (None, 0.98)
    )
    assert len(slow.ladder) > 1.5 * len(usual.ladder)
    with pytest.raises(InputError, match="ess_threshold must be above 0 and below 1, got 2"):
        reference(target, 100, seed=0, ess_threshold=2)
    with pytest.raises(InputError, match="ess_threshold is for targets that declare their space"):
        reference(FunctionTarget(lambda x: -x.square().sum(-1), 2), seed=0, ess_threshold=0.95)
