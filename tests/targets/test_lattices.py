"""phi^4, U(1) and XY: exact log Z, exact means, exact draws, symmetries.

Statistical tests allow 6 standard errors of a mean of exact draws, 2e-9 each under the central limit theorem. Figures
that were found independently of this code name their digits.
"""

import math

import pytest
import torch
from torch import Tensor

from diffsampler.observables import Observable, estimate_observable
from diffsampler.target import Target
from targets import Phi4, Phi4Hopping, U1Gauge, XYModel


def trapezoid(target: Target, low: float, high: float, step: float) -> float:
    """log of the integral over a box, by the trapezoidal rule, one value of the first coordinate at a time."""
    line = torch.arange(low, high - 1e-9, step)
    rest = torch.cartesian_prod(*[line] * (target.dim - 1))
    rows = [target.log_prob(torch.cat([first.expand(len(rest), 1), rest], 1)).logsumexp(0) for first in line]
    return float(torch.stack(rows).logsumexp(0)) + target.dim * math.log(step)


# ---- phi^4


@pytest.mark.parametrize(
    "target, log_z, digit",
    [
        (Phi4((2, 2)), 1.1731847, 1e-7),
        (Phi4((4, 4)), 3.2183289, 1e-7),
        (Phi4((4, 4), coupling=8.0), 2.40514, 1e-5),
        (Phi4((8, 4)), 6.29677, 2e-5),
        (Phi4((6, 6)), 6.9849479, 1e-7),
        (Phi4((6, 6), coupling=8.0), 5.2430456, 1e-6),
        pytest.param(Phi4((8, 8), coupling=6.008), 15.98650, 2e-5, marks=pytest.mark.slow),
        (Phi4Hopping((4, 4), 0.2), 10.05065452, 1e-6),
        (Phi4Hopping((4, 8), 0.25), 21.68346845, 1e-6),
        (Phi4Hopping((6, 6), 0.2), 22.53447568, 1e-6),
        pytest.param(Phi4Hopping((6, 6), 0.25), 24.22709899, 1e-5, marks=pytest.mark.slow),
        pytest.param(Phi4Hopping((4, 4), 0.3), 17.52231, 3e-5, marks=pytest.mark.slow),
        pytest.param(Phi4Hopping((6, 6), 0.3), 38.4573, 1e-3, marks=pytest.mark.slow),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.shape}" if isinstance(value, Target) else str(value),
)
def test_log_z_of_phi4(target: Phi4, log_z: float, digit: float) -> None:
    # Another transfer matrix, on Gauss nodes of the site weight, gave these digits.
    assert target.log_z == pytest.approx(log_z, abs=digit)


@pytest.mark.parametrize("coupling", [2.0, 4.0])
def test_log_z_of_phi4_by_quadrature(coupling: float) -> None:
    # Steps of 0.15 leave 5e-8, as finer ones show.
    target = Phi4((2, 2), mass_squared=-4.0, coupling=coupling)
    assert target.log_z == pytest.approx(trapezoid(target, -1.95, 2.0, 0.15), abs=2e-7)


def test_log_z_of_two_deep_phases() -> None:
    # Around phi = +-(-mass_squared / (2 coupling))^(1/2), to leading order the logarithm of two Gaussians.
    target = Phi4((4, 4), mass_squared=-1.0, coupling=1e-3)
    field = torch.full((16,), 500**0.5)
    stiffness = -torch.autograd.functional.hessian(target.log_prob, field)
    gaussian = float(target.log_prob(field)) + 8 * math.log(2 * math.pi) - 0.5 * float(torch.logdet(stiffness))
    assert target.log_z == pytest.approx(gaussian + math.log(2), abs=0.02)


def test_conventions_of_phi4_agree() -> None:
    # The field of the one is kappa^(1/2) times that of the other.
    kappa, coupling = 0.22, 0.05
    mass_squared = (1 - 2 * coupling) / kappa - 4
    hopping = Phi4Hopping((3, 4), kappa, coupling)
    other = Phi4((3, 4), mass_squared, coupling / kappa**2)
    x = torch.randn(5, 12)
    torch.testing.assert_close(hopping.log_prob(x), other.log_prob(kappa**0.5 * x))
    assert hopping.log_z == pytest.approx(other.log_z - 12 * math.log(kappa**0.5), abs=1e-6)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2)], ids=str)
def test_gaussian_limit(shape: tuple[int, ...]) -> None:
    free = Phi4(shape, mass_squared=1.0, coupling=0.0)
    stiffness = -torch.autograd.functional.hessian(free.log_prob, torch.zeros(free.dim))
    expected = 0.5 * free.dim * math.log(2 * math.pi) - 0.5 * float(torch.logdet(stiffness))
    assert free.log_z == pytest.approx(expected, abs=1e-10)
    assert Phi4Hopping((3, 4), 0.2, 0.0).log_z == pytest.approx(
        Phi4((3, 4), 1.0, 0.0).log_z - 6 * math.log(0.2), abs=1e-10
    )
    if len(shape) < 3:  # the transfer matrix, which knows nothing of waves
        assert Phi4(shape, mass_squared=1.0, coupling=1e-9).log_z == pytest.approx(expected, abs=1e-6)


def test_log_z_of_phi4_is_left_out_where_it_is_not_known() -> None:
    assert Phi4((3, 3, 3)).log_z is None and Phi4((16, 16)).log_z is None
    assert Phi4((20,)).log_z is not None


def test_observables_of_phi4() -> None:
    target = Phi4((2, 2))
    x = torch.tensor([[1.0, 2.0, -1.0, -4.0], [0.0, 0.0, 0.0, 1.0]])
    values = {name: f(x) for name, f in target.observables.items()}
    assert values["magnetisation"].tolist() == [-0.5, 0.25] and values["absolute_magnetisation"].tolist() == [0.5, 0.25]
    assert values["magnetisation_squared"].tolist() == [0.25, 0.0625]
    assert values["positive_magnetisation"].tolist() == [0.0, 1.0]
    assert torch.equal(values["action"], -target.log_prob(x))
    assert target.exact_observables.keys() < values.keys()


# ---- U(1)


@pytest.mark.parametrize(
    "size, beta, log_z, plaquette, charge_squared, no_charge",
    [
        (4, 1.0, 3.7746347, 0.44639391, 0.650098, 0.494228),
        (4, 2.0, 13.1901933, 0.69925193, 0.290636, 0.717469),
        (4, 7.0, 82.5064752, 0.93035662, 0.000770, 0.999230),
        (8, 2.0, 52.7355867, 0.69777466, 1.239299, 0.358991),
        (16, 7.0, 1312.6381863, 0.92553221, 1.006414, 0.397711),
    ],
)
def test_exact_u1(
    size: int, beta: float, log_z: float, plaquette: float, charge_squared: float, no_charge: float
) -> None:
    target = U1Gauge((size, size), beta)
    assert target.log_z - target.dim * math.log(2 * math.pi) == pytest.approx(log_z, abs=1e-7)
    exact = target.exact_observables
    assert exact["plaquette"] == pytest.approx(plaquette, abs=1e-8)
    assert exact["topological_charge_squared"] == pytest.approx(charge_squared, abs=1e-6)
    assert exact["no_topological_charge"] == pytest.approx(no_charge, abs=1e-6)


def test_log_z_of_u1_by_quadrature() -> None:
    # Four plaquettes of 2 x 2, whose sum is 0: three are free, the other five angles change nothing.
    beta, num = 1.3, 40
    line = torch.arange(num) * 2 * math.pi / num
    free = torch.cartesian_prod(line, line, line)
    log_integral = (beta * (free.cos().sum(-1) + free.sum(-1).cos())).logsumexp(0) + 3 * math.log(2 * math.pi / num)
    assert U1Gauge((2, 2), beta).log_z == pytest.approx(float(log_integral) + 5 * math.log(2 * math.pi), abs=1e-10)


@pytest.mark.parametrize("shape, beta", [((2, 3), 0.4), ((4, 3), 2.0), ((6, 6), 5.0)], ids=str)
def test_exact_draws_of_u1(shape: tuple[int, int], beta: float, generator: torch.Generator) -> None:
    target, n = U1Gauge(shape, beta), 10_000
    x = target.sample(n, generator)
    assert x.abs().max() <= math.pi
    for name, exact in target.exact_observables.items():
        values = target.observables[name](x)
        assert abs(float(values.mean()) - exact) < 6 * float(values.std()) / n**0.5, name
    # Links are uniform, plaquettes at different places alike, and E[score^2] = beta E[4 links of cos] by parts.
    assert (torch.stack([x.cos(), x.sin()]).mean(1).abs() < 6 / (2 * n) ** 0.5).all()
    plaquettes = target.space.plaquettes(x).cos().flatten(1)
    spread = 6 * plaquettes.std(0) / n**0.5
    assert ((plaquettes.mean(0) - target.exact_observables["plaquette"]).abs() < spread).all()
    parts = target.score(x).square().sum(-1) - 4 * target.log_prob(x)
    assert abs(float(parts.mean())) < 6 * float(parts.std()) / n**0.5


def test_topological_charge_of_a_smooth_field() -> None:
    # theta_1 rises along the first direction by 2 pi q / V a step, theta_0 closes it in the last row.
    rows, columns, q = 4, 3, 2
    flux = 2 * math.pi * q / (rows * columns)
    theta = torch.zeros(2, rows, columns)
    theta[1] = flux * torch.arange(rows).unsqueeze(-1)
    theta[0, -1] = -flux * rows * torch.arange(columns)
    target = U1Gauge((rows, columns), 1.0)
    assert float(target.topological_charge(theta.flatten())) == q
    assert float(target.topological_charge(-theta.flatten())) == -q
    assert float(target.log_prob(theta.flatten())) == pytest.approx(12 * math.cos(flux))


def test_gauge_transformations_change_nothing(generator: torch.Generator) -> None:
    target = U1Gauge((3, 4), 1.7)
    x = target.sample(6, generator)
    alpha = torch.randn(6, 3, 4, generator=generator)
    theta = target.space.fields(x)
    moved = torch.stack([theta[:, mu] + alpha - alpha.roll(-1, mu + 1) for mu in (0, 1)], 1).flatten(1)
    torch.testing.assert_close(target.log_prob(moved), target.log_prob(x))
    assert torch.equal(target.topological_charge(moved), target.topological_charge(x))
    # One that depends on a link is no symmetry.
    assert not torch.allclose(target.log_prob(x + 0.1 * torch.arange(24)), target.log_prob(x))


# ---- XY


def test_log_z_of_a_chain_and_a_strip() -> None:
    step = 2 * math.pi / 40
    assert XYModel((3,), 1.7).log_z == pytest.approx(trapezoid(XYModel((3,), 1.7), 0, 2 * math.pi, step), abs=1e-9)
    target = XYModel((2, 2), 1.5)
    assert target.log_z == pytest.approx(trapezoid(target, 0, 2 * math.pi, step), abs=1e-6)
    # A strip of width 1 is a chain whose sites are bound to themselves.
    assert XYModel((1, 5), 1.3).log_z == pytest.approx(XYModel((5,), 1.3).log_z + 5 * 1.3, abs=1e-4)
    assert XYModel((5, 3), 0.9).log_z == pytest.approx(XYModel((3, 5), 0.9).log_z, abs=1e-9)
    assert XYModel((3, 3, 3), 0.9).log_z is None and XYModel((8, 8), 0.9).log_z is None


@pytest.mark.parametrize("shape, beta", [((3, 4), 0.3), ((4, 4), 0.2)], ids=str)
def test_log_z_of_a_strip_by_uniform_draws(shape: tuple[int, int], beta: float, generator: torch.Generator) -> None:
    target, n = XYModel(shape, beta), 200_000
    x = 2 * math.pi * torch.rand(n, target.dim, generator=generator)
    weights = (target.log_prob(x) + target.dim * math.log(2 * math.pi) - target.log_z).exp()
    error = float(weights.std()) / n**0.5
    assert error < 0.01 and abs(float(weights.mean()) - 1) < 6 * error


@pytest.mark.parametrize("size, beta", [(1, 1.0), (2, 0.7), (5, 2.5), (40, 1.2)])
def test_exact_draws_of_a_chain(size: int, beta: float, generator: torch.Generator) -> None:
    target, n = XYModel((size,), beta), 10_000
    x = target.sample(n, generator)
    for name, exact in target.exact_observables.items():
        values = target.observables[name](x)
        assert abs(float(values.mean()) - exact) < 6 * float(values.std()) / n**0.5 + 1e-12, name
    # E = -d log Z / d beta
    higher, lower = (XYModel((size,), beta + sign * 1e-4).log_z for sign in (1, -1))
    assert target.exact_observables["energy"] == pytest.approx(-(higher - lower) / 2e-4, abs=1e-5)


def test_observables_of_xy() -> None:
    target = XYModel((3,), 2.0)
    x = torch.tensor([[0.0, math.pi / 2, math.pi]])
    values = {name: float(f(x)) for name, f in target.observables.items() if not isinstance(f, Observable)}
    # bonds: cos(pi / 2) twice and cos(pi); the sum of the rotators is i
    assert values["energy"] == pytest.approx(1.0) and values["energy_squared"] == pytest.approx(1.0)
    assert values["magnetisation_squared"] == pytest.approx(1 / 9)
    # beside all rotators alike, of energy -3 and m = 1: variances of two values are a quarter of their squared distance
    both = torch.cat([x, torch.zeros(1, 3)])
    of_both = {name: float(estimate_observable(name, f, both).value) for name, f in target.observables.items()}
    assert of_both["heat_capacity"] == pytest.approx(2.0**2 * 4.0**2 / 4)
    assert of_both["susceptibility"] == pytest.approx(3 * (2 / 3) ** 2 / 4)
    with pytest.raises(NotImplementedError, match="no exact samples"):
        XYModel((3, 3)).sample(2)


# ---- all


@pytest.mark.parametrize(
    "target",
    [Phi4((2, 3)), Phi4Hopping((4, 3)), Phi4((3, 2, 2)), U1Gauge((3, 2)), XYModel((3, 4)), XYModel((5,))],
    ids=lambda target: f"{type(target).__name__}-{target.shape}",
)
def test_symmetries_of_the_space(target: Target, generator: torch.Generator) -> None:
    x = torch.randn(20, target.dim, generator=generator)
    images = [target.space.image(x, generator) for _ in range(5)]
    assert max(float((image - x).abs().max()) for image in images) > 0.1
    for image in images:
        torch.testing.assert_close(target.log_prob(image), target.log_prob(x))
        for name, f in target.observables.items():
            torch.testing.assert_close(f(image), f(x), msg=lambda text, name=name: f"{name}: {text}")
    if target.space.is_periodic:
        turned = target.space.wrap(x + 2 * math.pi)
        torch.testing.assert_close(target.log_prob(turned), target.log_prob(x))


def test_phi4_reports_its_susceptibility_by_itself() -> None:
    target, x = Phi4((2, 2)), torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, -2.0, 2.0]])
    # |m| is 1, then 0
    assert float(estimate_observable("s", target.observables["susceptibility"], x).value) == pytest.approx(4 / 4)


def test_means_of_a_tensor_keep_its_leading_shape() -> None:
    for target in (Phi4((2, 3)), U1Gauge((3, 2)), XYModel((3, 4))):
        x: Tensor = torch.randn(7, target.dim)
        assert {tuple(f(x).shape) for f in target.observables.values() if not isinstance(f, Observable)} == {(7,)}
