"""One battery for all targets: adding one is an entry in `CASES`.

Statistical tests have fixed seeds; their bounds are 6 standard errors of a mean of n = 20000 draws, 2e-9 for each of
the about 500 figures under the central limit theorem (1e-6 in all), or as stated. One thread.
"""

import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from diffsampler.errors import InputError
from diffsampler.target import Target
from targets import (
    BreastCancer,
    DoubleWell,
    DoubleWell4,
    Funnel,
    Gaussian,
    GaussianMixture,
    GaussianMixture9,
    GaussianMixture25,
    GaussianMixture40,
    LennardJones,
    LogisticRegression,
    ManyWell,
    MuellerBrown,
    Phi4,
    Phi4Hopping,
    U1Gauge,
    VonMisesMixture,
    XYModel,
)
from targets._wells import integrate_well

N = 20_000
LOG_2PI = math.log(2 * math.pi)
COVARIANCE = [[2.0, -0.6, 0.3], [-0.6, 0.5, 0.1], [0.3, 0.1, 1.5]]
MEANS = [[-3.0, 1.0], [2.0, 4.0], [0.5, -2.0]]
DESIGN = [[1.0, 0.5], [-2.0, 1.5], [0.3, -0.7]]


def make_grid(*axes: tuple[float, float, float]) -> tuple[Tensor, float]:
    """Points, with shape (M, D), and cell volume of the trapezoidal rule on (low, high, step) axes.

    The rule converges faster than any power of the step for smooth densities that vanish at the ends.
    """
    lines = [torch.arange(low, high, step, dtype=torch.float64) for low, high, step in axes]
    points = torch.cartesian_prod(*lines)
    return points.reshape(len(points), -1), math.prod(step for _, _, step in axes)


def open_funnel() -> tuple[Tensor, Tensor]:
    """Quadrature of the three-dimensional funnel in (x_0, x_i exp(-x_0 / 2)), where it is a box."""
    points, volume = make_grid((-30, 30, 0.25), (-8, 8, 0.25), (-8, 8, 0.25))
    neck = points[:, :1]
    return torch.cat([neck, points[:, 1:] * (neck / 2).exp()], dim=-1), neck.squeeze(-1) + math.log(volume)


def cover(*axes: tuple[float, float, float]) -> Callable[[], tuple[Tensor, Tensor]]:
    def quadrature() -> tuple[Tensor, Tensor]:
        points, volume = make_grid(*axes)
        return points, torch.full((len(points),), math.log(volume), dtype=torch.float64)

    return quadrature


def log_normal(x: float, variance: float) -> float:
    return -0.5 * x * x / variance - 0.5 * (LOG_2PI + math.log(variance))


def log_sigmoid(z: float) -> float:
    return -math.log1p(math.exp(-z))


@dataclass
class Case:
    """A target, one point with the value of log R there by hand, and a quadrature: points and log-weights.

    `exact_samples` and `light_tails` say what the tests of samples may ask of it, `spread` how far apart points are
    put where there are no exact samples: rounding is measured away from singular cores.
    """

    name: str
    make: Callable[[], Target]
    point: list[float]
    value: float
    quadrature: Callable[[], tuple[Tensor, Tensor]] | None = None
    exact_samples: bool = True
    light_tails: bool = True
    periodic: bool = False
    spread: float = 1.0


CASES = [
    Case(
        "Gaussian-full",
        lambda: Gaussian([1.0, -2.0, 0.5], COVARIANCE),
        [0.0, 0.0, 0.0],
        float(
            MultivariateNormal(
                torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor(COVARIANCE, dtype=torch.float64)
            ).log_prob(torch.zeros(3, dtype=torch.float64))
        ),
        cover((-9, 11, 0.25), (-7, 3, 0.125), (-9, 10, 0.25)),
    ),
    Case(
        "Gaussian-diagonal",
        lambda: Gaussian([1.0, -2.0], [0.5, 3.0]),
        [2.0, 1.0],
        log_normal(1.0, 0.5) + log_normal(3.0, 3.0),
        cover((-6, 8, 0.1), (-16, 12, 0.1)),
    ),
    Case(
        "Gaussian-isotropic",
        lambda: Gaussian([3.0], 4.0),
        [0.0],
        log_normal(3.0, 4.0),
        cover((-15, 21, 0.1)),
    ),
    Case(
        "GaussianMixture-unequal",
        lambda: GaussianMixture(MEANS, [[0.5, 1.0], [0.7, 0.6], [1.5, 0.4]], [1.0, 2.0, 5.0]),
        [0.0, 0.0],
        math.log(
            math.exp(log_normal(3.0, 0.25) + log_normal(1.0, 1.0)) / 8
            + math.exp(log_normal(2.0, 0.49) + log_normal(4.0, 0.36)) / 4
            + math.exp(log_normal(0.5, 2.25) + log_normal(2.0, 0.16)) * 5 / 8
        ),
        cover((-14, 14, 0.1), (-8, 11, 0.1)),
    ),
    Case(
        "GaussianMixture-per-mode",
        lambda: GaussianMixture([[-1.0], [4.0]], [0.5, 2.0], [3.0, 1.0]),
        [1.0],
        math.log(0.75 * math.exp(log_normal(2.0, 0.25)) + 0.25 * math.exp(log_normal(3.0, 4.0))),
        cover((-16, 24, 0.1)),
    ),
    Case(
        "GaussianMixture9",
        GaussianMixture9,
        [5.0, 0.3],
        # the neighbours at distance 4.7 and 5 add exp(-36.8), exp(-41.7) and less
        log_normal(0.0, 0.3) + log_normal(0.3, 0.3) - math.log(9),
        cover((-10, 10, 0.1), (-10, 10, 0.1)),
    ),
    Case(
        "GaussianMixture25",
        GaussianMixture25,
        [-10.0, 5.3],
        log_normal(0.0, 0.3) + log_normal(0.3, 0.3) - math.log(25),
        cover((-14, 14, 0.1), (-14, 14, 0.1)),
    ),
    Case(
        "GaussianMixture40",
        GaussianMixture40,
        [0.0, 0.0],
        # the first line of FAB's own definition: torch.rand after torch.manual_seed(0), then torch's own mixture
        float(
            MixtureSameFamily(
                Categorical(torch.ones(40, dtype=torch.float64)),
                Independent(
                    Normal(
                        (80 * (torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) - 0.5)).double(),
                        torch.nn.functional.softplus(torch.ones(40, 2, dtype=torch.float64)),
                    ),
                    1,
                ),
            ).log_prob(torch.zeros(2, dtype=torch.float64))
        ),
        cover((-55, 55, 0.5), (-55, 55, 0.5)),
    ),
    Case(
        "GaussianMixture40-50d",
        lambda: GaussianMixture40(dim=50),
        [0.0] * 50,
        float(
            MixtureSameFamily(
                Categorical(torch.ones(40, dtype=torch.float64)),
                Independent(
                    Normal(
                        (80 * (torch.rand(40, 50, generator=torch.Generator().manual_seed(0)) - 0.5)).double(),
                        torch.ones(40, 50, dtype=torch.float64),
                    ),
                    1,
                ),
            ).log_prob(torch.zeros(50, dtype=torch.float64))
        ),
    ),
    Case(
        "Funnel-hard",
        lambda: Funnel(dim=3),
        [2.0, 1.0, -3.0],
        log_normal(2.0, 9.0) + log_normal(1.0, math.exp(2)) + log_normal(3.0, math.exp(2)),
        open_funnel,
        light_tails=False,
    ),
    Case(
        "Funnel-easy",
        lambda: Funnel(dim=10, scale=1.0),
        [-1.0] + [0.5] * 9,
        log_normal(1.0, 1.0) + 9 * log_normal(0.5, math.exp(-1)),
        light_tails=False,
    ),
    Case(
        "ManyWell-2",
        lambda: ManyWell(dim=2),
        [-1.5, 2.0],
        -5.0625 + 13.5 - 0.75 - 2.0,
        cover((-4, 4, 0.02), (-9, 9, 0.1)),
    ),
    Case(
        "ManyWell-32",
        ManyWell,
        [1.0, 2.0] + [-2.0, 0.5] * 15,
        (-1 + 6 + 0.5 - 2) + 15 * (-16 + 24 - 1 - 0.125),
    ),
    Case(
        "DoubleWell-2",
        lambda: DoubleWell(num_wells=1, delta=2.0, dim=2),
        [1.0, 3.0],
        -1.0 - 4.5,
        cover((-4, 4, 0.02), (-9, 9, 0.1)),
    ),
    Case("DoubleWell-5", DoubleWell, [1.0, -2.0, 0.0, 3.0, 1.0], -9.0 - 0.0 - 16.0 - 25.0 - 9.0),
    Case("DoubleWell-50", lambda: DoubleWell(5, 2.0, 50), [1.0] * 50, -5.0 - 22.5),
    Case(
        "LogisticRegression",
        lambda: LogisticRegression(DESIGN, [1, 0, 0], prior_scale=1.5),
        [1.0, -2.0],
        log_sigmoid(0.0) + log_sigmoid(5.0) + log_sigmoid(-1.7) + log_normal(1.0, 2.25) + log_normal(2.0, 2.25),
        exact_samples=False,
    ),
    Case(
        "VonMisesMixture",
        lambda: VonMisesMixture(2, [-1.5, 0.9], [6.0, 3.0], [0.3, 0.7], shift=0.5),
        [0.4, -0.2],
        sum(
            math.log(
                sum(
                    weight * math.exp(kappa * math.cos(x - mu - 0.5 * i)) / (2 * math.pi * bessel)
                    for weight, kappa, mu, bessel in (
                        (0.3, 6.0, -1.5, 67.2344069764780),
                        (0.7, 3.0, 0.9, 4.88079258586502),
                    )
                )
            )
            for i, x in enumerate((0.4, -0.2))
        ),
        cover((-math.pi, math.pi - 1e-6, 2 * math.pi / 300), (-math.pi, math.pi - 1e-6, 2 * math.pi / 300)),
        periodic=True,
    ),
    Case(
        "DW-4",
        DoubleWell4,
        [0.0, 0.0, 4.0, 0.0, 4.0, 3.0, 0.0, 6.0],
        # distances 4, 5, 6, 3, 52^(1/2), 5: every pair once
        3 * 3.1 + 1.6 - 0.9 * (52**0.5 - 4) ** 4 + 4 * (52**0.5 - 4) ** 2,
    ),
    Case(
        "LennardJones",
        lambda: LennardJones(3, 2),
        [0.0, 0.0, 1.0, 0.0, 0.0, 2.0],
        # distances 1, 2, 5^(1/2): every pair twice; their squares over 2 n are the trap's
        -2 * ((1 - 2) + (2**-12 - 2 * 2**-6) + (5**-6 - 2 * 5**-3)) - 10 / 6,
        exact_samples=False,
        spread=3.0,
    ),
    Case(
        "LennardJones-unlike",
        lambda: LennardJones(4, 2, epsilon=0.5, radius=2.0, trap=0.2),
        [0.0, 0.0, 3.0, 0.0, 0.0, 4.0, 3.0, 4.0],
        # distances 3, 4 and 5, each of two pairs
        -2 * sum((2 / d) ** 12 - 2 * (2 / d) ** 6 for d in (3, 4, 5)) - 0.2 * 2 * (9 + 16 + 25) / 8,
        exact_samples=False,
        spread=5.0,
    ),
    Case(
        "MuellerBrown",
        lambda: MuellerBrown(0.05),
        [0.0, 1.0],
        -0.05
        * (
            -200 * math.exp(-1 - 10)
            - 100 * math.exp(-10 * 0.25)
            - 170 * math.exp(-6.5 * 0.25 + 11 * 0.5 * -0.5 - 6.5 * 0.25)
            + 15 * math.exp(0.7)
        ),
        cover((-4.7, 2.7, 0.01), (-2.7, 4.7, 0.01)),
        exact_samples=False,
    ),
    Case(
        "Phi4",
        lambda: Phi4((3,), mass_squared=0.5, coupling=2.0),
        [1.0, 2.0, -1.0],
        -(1 + 9 + 4) - 0.5 * (1 + 4 + 1) - 2 * (1 + 16 + 1),
        cover((-3, 3, 0.05), (-3, 3, 0.05), (-3, 3, 0.05)),
        exact_samples=False,
    ),
    Case(
        "Phi4-2d",
        lambda: Phi4((2, 3), mass_squared=-4.0, coupling=1.5),
        [1.0, 2.0, -1.0, 0.0, 0.5, 0.0],
        # the rows' differences, then those of the columns twice
        -(1 + 9 + 4) - (0.25 + 0.25) - 2 * (1 + 2.25 + 1) + 4 * 6.25 - 1.5 * (1 + 16 + 1 + 0.0625),
        exact_samples=False,
    ),
    Case(
        "Phi4Hopping",
        lambda: Phi4Hopping((2, 2), kappa=0.25, coupling=0.1),
        [1.0, 2.0, -1.0, 0.5],
        # bonds 2, -1/2, -1 and 1, each twice
        2 * 0.25 * 2 * 1.5 - 0.8 * 6.25 - 0.1 * (1 + 16 + 1 + 0.0625),
        cover(*[(-4.0, 4.0, 0.3)] * 4),
        exact_samples=False,
    ),
    Case(
        "U1Gauge",
        lambda: U1Gauge((2, 3), beta=1.5),
        # theta_0 at (0, 0) and theta_1 at (1, 2): a plaquette has the first, one the second, one both
        [0.7] + [0.0] * 10 + [-1.1],
        1.5 * (3 + math.cos(0.7) + math.cos(1.8) + math.cos(1.1)),
        periodic=True,
    ),
    Case(
        "XYModel-pair",
        lambda: XYModel((2,), beta=0.8),
        [0.2, 0.7],
        2 * 0.8 * math.cos(0.5),
        cover(*[(-math.pi, math.pi - 1e-6, 2 * math.pi / 300)] * 2),
        periodic=True,
    ),
    Case(
        "XYModel-chain",
        lambda: XYModel((3,), beta=0.8),
        [0.2, 0.7, 2.2],
        0.8 * (math.cos(0.5) + math.cos(1.5) + math.cos(2.0)),
        periodic=True,
    ),
    Case(
        "XYModel",
        lambda: XYModel((2, 3), beta=0.8),
        [0.2, 0.7, 2.2, 0.0, 0.0, 0.0],
        0.8
        * ((math.cos(0.5) + math.cos(1.5) + math.cos(2.0) + 3) + 2 * (math.cos(0.2) + math.cos(0.7) + math.cos(2.2))),
        exact_samples=False,
        periodic=True,
    ),
    Case(
        "BreastCancer",
        BreastCancer,
        [0.0] * 31,
        -569 * math.log(2) - 15.5 * LOG_2PI,
        exact_samples=False,
    ),
]
SAMPLED = [case for case in CASES if case.exact_samples]
QUADRATURES = [case for case in CASES if case.quadrature is not None]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_points(case: Case, target: Target, *shape: int) -> Tensor:
    """Points in float64, from samples with some noise where there are exact samples."""
    noise = torch.randn(*shape, target.dim, generator=make_generator(1), dtype=torch.float64)
    if not target.has_exact_samples:
        return case.spread * noise
    return target.sample(math.prod(shape), make_generator(2)).double().reshape(*shape, target.dim) + 0.3 * noise


def assert_mean(figures: Tensor, truth: Tensor | float, case: object) -> None:
    """The mean over the first axis lies within 6 standard errors of the truth (see above), with room for rounding."""
    figures = figures.double()
    bound = 6 * figures.std(0) / len(figures) ** 0.5 + 1e-6
    error = (figures.mean(0) - truth).abs()
    assert (error <= bound).all(), f"{case}: errors {error} beyond {bound}"


# ---- the density


@each(CASES)
def test_log_prob_is_the_formula(case):
    target = case.make()
    x = torch.tensor(case.point, dtype=torch.float64)
    assert len(case.point) == target.dim
    assert float(target.log_prob(x)) == pytest.approx(case.value, rel=1e-12, abs=1e-12), case.name


@each(CASES)
def test_score_is_the_gradient(case):
    target = case.make()
    x = make_points(case, target, 50).requires_grad_()
    (expected,) = torch.autograd.grad(target.log_prob(x).sum(), x)
    with torch.inference_mode():
        log_prob, score = target.log_prob_and_score(x)
    torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-9, msg=lambda text: f"{case.name}: {text}")
    torch.testing.assert_close(log_prob, target.log_prob(x).detach(), rtol=1e-12, atol=1e-12)
    for result in (*target.log_prob_and_score(x), target.score(x)):
        assert not result.requires_grad, case.name


@each(CASES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_leading_shapes_and_dtypes(case, shape, dtype):
    target = case.make()
    x = make_points(case, target, *shape).to(dtype)
    x_before = x.clone()
    log_prob, score = target.log_prob_and_score(x)
    assert torch.equal(x, x_before), f"{case.name} writes into x"
    rows = x.reshape(-1, target.dim)
    each_log_prob = torch.stack([target.log_prob(row) for row in rows]).reshape(shape)
    each_score = torch.stack([target.score(row) for row in rows]).reshape(x.shape)
    tolerance = dict(rtol=1e-5, atol=1e-4) if dtype == torch.float32 else dict(rtol=1e-12, atol=1e-12)
    for got, expected in ((log_prob, each_log_prob), (target.log_prob(x), each_log_prob), (score, each_score)):
        torch.testing.assert_close(got, expected, **tolerance, msg=lambda text: f"{case.name}: {text}")


@each(CASES)
def test_float32_agrees_with_float64(case):
    target = case.make()
    x = make_points(case, target, 200).float()
    narrow, wide = target.log_prob_and_score(x), target.log_prob_and_score(x.double())
    for got, expected in zip(narrow, wide, strict=True):
        # 1e-5 relative to the largest entry of a row: entries near a cancellation are as good as their terms
        size = expected.abs().amax(-1, keepdim=True) if expected.ndim == 2 else expected.abs()
        assert ((got.double() - expected).abs() <= 1e-4 + 1e-5 * size).all(), case.name


@each(CASES)
def test_casting_the_target_leaves_the_dtype_of_results_to_x(case):
    x = make_points(case, case.make(), 4)
    expected = case.make().log_prob_and_score(x)
    for target in (case.make().double(), case.make().float()):
        for got, reference in zip(target.log_prob_and_score(x), expected, strict=True):
            assert got.dtype == torch.float64, case.name
            # a target cast to float32 has constants of 24 bits: 1e-7 x their condition
            torch.testing.assert_close(got, reference, rtol=1e-4, atol=1e-3)


@each(CASES)
def test_holds_nothing_to_learn_or_save(case):
    target = case.make()
    assert not list(target.parameters()) and not target.state_dict(), case.name


# ---- log Z


@each(QUADRATURES)
def test_log_z_is_the_integral(case):
    target = case.make()
    points, log_weights = case.quadrature()
    log_z = float(torch.logsumexp(target.log_prob(points) + log_weights, 0))
    assert target.log_z == pytest.approx(log_z, abs=1e-6), case.name


@pytest.mark.parametrize(
    "target, log_z",
    [
        (ManyWell(8), 41.173919),
        (ManyWell(32), 164.695675),
        (ManyWell(64), 329.391351),
        (ManyWell(128), 658.782701),
        (ManyWell(512), 2635.130805),
        (DoubleWell(5, 4.0, 5), -0.541056),
        (DoubleWell(5, 2.0, 50), 42.817243),
    ],
)
def test_log_z_of_the_literature(target, log_z):
    assert target.log_z == pytest.approx(log_z, abs=1e-6)


def test_log_z_of_products_is_a_sum():
    # the densities factorise, so that the two-dimensional quadratures above settle every dimension
    assert ManyWell(32).log_z == pytest.approx(16 * ManyWell(2).log_z, rel=1e-12)
    expected = 3 * DoubleWell(1, 4.0, 1).log_z + 4 * 0.5 * LOG_2PI
    assert DoubleWell(3, 4.0, 7).log_z == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("delta", [1e-3, 0.1, 1.0, 30.0, 1000.0])
def test_well_integral_from_flat_to_narrow(delta):
    step = 1e-4
    u = torch.arange(-40.0, 40.0, step, dtype=torch.float64)
    expected = float(torch.logsumexp(-((u * u - delta) ** 2) + 0.3 * u, 0)) + math.log(step)
    log_integral, right = integrate_well(delta, 0.3)
    assert log_integral == pytest.approx(expected, abs=1e-8)
    # the two wells differ by exp(2 tilt sqrt(delta)) up to their width
    if delta >= 30:
        assert right == pytest.approx(1 / (1 + math.exp(-0.6 * delta**0.5)), abs=1e-3)


def test_evidence_sums_to_one_over_all_labels():
    # sum over y of p(y) = 1 holds only with the prior's normaliser and both signs of the likelihood right
    points, log_weights = cover((-13, 13, 0.1), (-13, 13, 0.1))()
    total = 0.0
    for labels in itertools.product([0, 1], repeat=3):
        target = LogisticRegression(DESIGN, list(labels), prior_scale=1.5)
        total += float((target.log_prob(points) + log_weights).exp().sum())
    assert total == pytest.approx(1.0, abs=1e-8)


def test_logistic_likelihood_is_stable():
    target = LogisticRegression([[1e4, 0.0]], [0], prior_scale=10.0)
    log_prob, score = target.log_prob_and_score(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert log_prob[0] == pytest.approx(-1e4, rel=1e-3) and score[0, 0] == pytest.approx(-1e4, rel=1e-3)
    assert log_prob[1] == pytest.approx(2 * log_normal(0, 100.0) - 0.005, abs=1e-4)
    assert score[1, 0] == pytest.approx(0.01, abs=1e-6)


def anneal(target: LogisticRegression, chains: int, steps: int, leaps: int = 8, nu: int = 8) -> tuple[float, float]:
    """log Z and its standard error: annealed importance sampling from a Student t at the mode, one HMC move a step.

    Works in coordinates whitened by the Laplace approximation. Unbiased for Z whatever the moves.
    """
    generator, dim = make_generator(3), target.dim
    rows, mode = target._signed_design, torch.zeros(target.dim, dtype=torch.float64)
    for _ in range(100):
        log_prob, score = target.log_prob_and_score(mode)
        p = torch.sigmoid(rows @ mode)
        hessian = (rows.T * (p * (1 - p))) @ rows + torch.eye(dim, dtype=torch.float64) / target.prior_scale**2
        move = torch.linalg.solve(hessian, score)
        while target.log_prob(mode + move) < log_prob and move.norm() > 1e-12:
            move = move / 2
        mode = mode + move
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian))
    log_t = math.lgamma((nu + dim) / 2) - math.lgamma(nu / 2) - 0.5 * dim * math.log(nu * math.pi)
    log_det = factor.diagonal().log().sum()

    def evaluate(z, beta):
        log_prob, score = target.log_prob_and_score(mode + z @ factor.T)
        spread = 1 + (z * z).sum(-1, keepdim=True) / nu
        base, pull = log_t - 0.5 * (nu + dim) * spread.log().squeeze(-1), -(nu + dim) / nu * z / spread
        gap = log_prob + log_det - base
        return gap, base + beta * gap, pull + beta * (score @ factor - pull)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    z = draw(chains, dim) / (draw(chains, nu).square().mean(-1, keepdim=True)).sqrt()
    gap = evaluate(z, 0.0)[0]
    log_weights = torch.zeros(chains, dtype=torch.float64)
    for step in range(steps):
        beta = (step + 1) / steps
        log_weights += gap / steps
        velocity = draw(chains, dim)
        size = 0.25 * (0.6 + 0.8 * torch.rand(chains, 1, generator=generator, dtype=torch.float64))
        _, before, pull = evaluate(z, beta)
        y, u = z, velocity
        for _ in range(leaps):
            u = u + 0.5 * size * pull
            y = y + size * u
            new_gap, after, pull = evaluate(y, beta)
            u = u + 0.5 * size * pull
        log_ratio = after - before + 0.5 * (velocity.square() - u.square()).sum(-1)
        kept = torch.rand(chains, generator=generator, dtype=torch.float64).log() < log_ratio
        z, gap = torch.where(kept.unsqueeze(-1), y, z), torch.where(kept, new_gap, gap)
    weights = (log_weights - log_weights.max()).exp()
    log_z = float(torch.logsumexp(log_weights, 0)) - math.log(chains)
    return log_z, float(weights.std() / weights.mean()) / chains**0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "centred, prior_scale, log_z, audit",
    [
        (True, 1.0, -55.23, 0.01),
        pytest.param(True, 10.0, -71.46, 0.05, marks=pytest.mark.slow),
        pytest.param(False, 10.0, -77.58, 0.05, marks=pytest.mark.slow),
    ],
)
def test_audited_evidence_of_breast_cancer(centred, prior_scale, log_z, audit):
    pytest.importorskip("sklearn")
    target = BreastCancer(centred=centred, prior_scale=prior_scale)
    assert target.dim == 31 and target.log_z == log_z
    estimate, error = anneal(target, chains=500, steps=80)
    # the audit's own interval plus 4 standard errors; the definitions are 6 nats apart and more
    assert error < 0.07
    assert abs(estimate - log_z) < audit + 4 * error, f"{estimate} +- {error}"


def test_breast_cancer_states_log_z_for_audited_definitions_only():
    pytest.importorskip("sklearn")
    assert BreastCancer(intercept=False).dim == 30
    assert BreastCancer(intercept=False).log_z is None
    assert BreastCancer(centred=False).log_z is None
    assert BreastCancer(prior_scale=2.0).log_z is None


def test_breast_cancer_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r'pip install "diffsampler\[data\]"'):
        BreastCancer()


# ---- exact samples


@each(CASES)
def test_exact_samples_are_declared(case):
    target = case.make()
    assert target.has_exact_samples == case.exact_samples, case.name
    if not target.has_exact_samples:
        with pytest.raises(NotImplementedError, match="no exact samples"):
            target.sample(3)


@each(SAMPLED)
def test_sampling_uses_the_generator_alone(case):
    target = case.make()
    state = torch.get_rng_state()
    x = target.sample(7, make_generator(5))
    assert torch.equal(torch.get_rng_state(), state), f"{case.name} draws from the global generator"
    assert torch.equal(x, target.sample(7, make_generator(5))), case.name
    assert not torch.equal(x, target.sample(7, make_generator(6))), case.name
    assert x.shape == (7, target.dim) and x.dtype == torch.get_default_dtype(), case.name
    assert target.sample(0, make_generator()).shape == (0, target.dim), case.name
    assert target.sample(2).isfinite().all(), case.name


@each(SAMPLED)
def test_samples_have_the_default_dtype(case):
    target = case.make()
    torch.set_default_dtype(torch.float64)
    try:
        assert target.sample(3, make_generator()).dtype == torch.float64, case.name
    finally:
        torch.set_default_dtype(torch.float32)


@each([case for case in SAMPLED if case.quadrature is not None])
def test_samples_have_the_density_of_log_prob(case):
    # expectations over the samples against those by quadrature: log R itself (the entropy), bounded functions of one
    # coordinate and of pairs around its median and, where the tails allow a standard error, first and second moments
    target = case.make()
    points, log_weights = case.quadrature()
    weights = torch.softmax(target.log_prob(points) + log_weights, 0)
    x = target.sample(N, make_generator(11)).double()
    centre, width = x.median(0).values, (x.quantile(0.8, dim=0) - x.quantile(0.2, dim=0))

    def evaluate(x):
        bounded = torch.tanh(3 * (x - centre) / width)
        figures = [target.log_prob(x).unsqueeze(-1), bounded, bounded**2, bounded * bounded.roll(1, -1)]
        if case.light_tails:
            figures += [x, x**2, x * x.roll(1, -1)]
        return torch.cat(figures, dim=-1)

    assert_mean(evaluate(x), weights @ evaluate(points), case.name)


@each([case for case in SAMPLED if case.make().space is None and not case.periodic])
def test_samples_satisfy_stein(case):
    # integration by parts: E[x_i d/dx_i log R(x)] = -1, in any dimension
    target = case.make()
    x = target.sample(N, make_generator(12)).double()
    assert_mean(x * target.score(x), -1.0, case.name)


@each([case for case in SAMPLED if "Well" in case.name])
def test_wells_are_filled_exactly(case):
    # Dvoretzky-Kiefer-Wolfowitz: P(sup |F_n - F| > b) <= 2 exp(-2 n b^2), which is 1e-6 at this b
    target = case.make()
    many = isinstance(target, ManyWell)
    x = target.sample(N, make_generator(13)).double()
    u = (x[:, 0::2] if many else x[:, : target.num_wells]).flatten().sort().values
    delta, tilt = (3.0, 0.5) if many else (target.delta, 0.0)
    grid = torch.arange(-5.0, 5.0, 1e-3, dtype=torch.float64)
    cdf = torch.softmax(-((grid**2 - delta) ** 2) + tilt * grid, 0).cumsum(0)
    empirical = torch.searchsorted(u, grid + 0.5e-3, right=True) / len(u)
    assert float((empirical - cdf).abs().max()) < math.sqrt(math.log(2e6) / (2 * len(u))), case.name


def test_wells_of_any_depth_are_sampled():
    for delta in (1e-3, 0.3, 50.0):
        x = DoubleWell(1, delta, 1).sample(N, make_generator(14)).double()
        u = torch.arange(-12.0, 12.0, 1e-3, dtype=torch.float64)
        weights = torch.softmax(-((u**2 - delta) ** 2), 0)
        assert_mean(torch.cat([x, x**2], -1), weights @ torch.stack([u, u**2], -1), delta)


def test_pairs_of_many_well_are_independent():
    x = ManyWell(8).sample(N, make_generator(15)).double()
    products = x.unsqueeze(-1) * x.unsqueeze(-2)
    points, log_weights = cover((-4, 4, 0.02), (-9, 9, 0.1))()
    mean = (torch.softmax(ManyWell(2).log_prob(points) + log_weights, 0) @ points).repeat(4)
    expected = torch.outer(mean, mean)
    off_diagonal = ~torch.eye(8, dtype=torch.bool)
    assert_mean(products[:, off_diagonal], expected[off_diagonal], "ManyWell-8")


# ---- diagnostics


@pytest.mark.parametrize("target", [GaussianMixture9(), GaussianMixture25(), GaussianMixture40()])
def test_mode_masses_of_exact_samples(target):
    figures = target.diagnostics(target.sample(N, make_generator(16)))
    num_modes = len(target.means)
    # a binomial count, 6 standard deviations; the 40 modes overlap, which moves some mass between neighbours
    slack = 6 * math.sqrt(num_modes / N) + (0.5 if num_modes == 40 else 0.0)
    assert figures["modes_found"] == num_modes
    assert 1 - slack < figures["min_mode_mass_ratio"] <= 1 <= figures["max_mode_mass_ratio"] < 1 + slack


def test_mode_masses_of_a_collapsed_sampler():
    figures = GaussianMixture9().diagnostics(torch.tensor([[5.0, 5.0]]).expand(100, 2))
    assert figures == {"modes_found": 1.0, "min_mode_mass_ratio": 0.0, "max_mode_mass_ratio": pytest.approx(9.0)}


def test_mode_masses_are_relative_to_the_weights():
    target = GaussianMixture([[-9.0], [9.0]], weights=[1.0, 3.0])
    figures = target.diagnostics(torch.tensor([-9.0, -9.0, 9.0, 9.0]).unsqueeze(-1))
    assert figures["min_mode_mass_ratio"] == pytest.approx(2 / 3)
    assert figures["max_mode_mass_ratio"] == pytest.approx(2.0)


def test_well_masses():
    target = ManyWell()
    assert target.right_well_mass == pytest.approx(0.8443, abs=5e-5)
    figures = target.diagnostics(target.sample(N, make_generator(17)))
    # binomial shares, 6 standard deviations: the mean over 16 pairs is four times as sharp
    slack = 6 * math.sqrt(target.right_well_mass * (1 - target.right_well_mass) / N)
    assert figures["right_well_mass_mean"] == pytest.approx(target.right_well_mass, abs=slack / 4)
    assert figures["right_well_mass_min"] == pytest.approx(target.right_well_mass, abs=slack)
    assert figures["right_well_mass_max"] == pytest.approx(target.right_well_mass, abs=slack)
    x = torch.zeros(4, 4)
    x[:, 0], x[:3, 2], x[:, 1] = 1.0, -1.0, 5.0
    figures = ManyWell(4).diagnostics(x)
    expected = {"mean": 0.5, "min": 0.0, "max": 1.0, "truth": target.right_well_mass}
    assert figures == {f"right_well_mass_{name}": value for name, value in expected.items()}
    assert DoubleWell(2, 4.0, 3).diagnostics(torch.ones(3, 3))["right_well_mass_min"] == 1.0


# ---- the literature's shapes


def test_forty_modes_follow_their_arguments():
    assert GaussianMixture40().scales.unique().tolist() == pytest.approx([1.3132617], abs=1e-6)
    assert GaussianMixture40(dim=50).scales.unique().tolist() == [1.0]
    assert GaussianMixture40(scale=0.5).scales.unique().tolist() == [0.5]
    assert GaussianMixture40().means.abs().max() <= 40
    assert not torch.equal(GaussianMixture40(seed=1).means, GaussianMixture40().means)


# ---- bad input


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Gaussian(0.0), "mean must be a list of numbers"),
        (lambda: Gaussian([]), "mean must be"),
        (lambda: Gaussian([0.0, math.nan]), "mean must be"),
        (lambda: Gaussian(["a"]), "mean must be"),
        (lambda: Gaussian([0.0, 0.0], [1.0, 2.0, 3.0]), "covariance must be one number, 2 numbers or a 2 x 2 matrix"),
        (lambda: Gaussian([0.0], -1.0), "covariance must have positive variances"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.2, 1.0]]), "covariance must be symmetric"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "covariance must be positive definite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0]]), "covariance must be"),
        (lambda: GaussianMixture([1.0, 2.0]), "means must be K lists of D numbers"),
        (lambda: GaussianMixture([[1.0], [2.0, 3.0]]), "means must be"),
        (lambda: GaussianMixture([[1.0], [2.0]], scales=[1.0, 2.0, 3.0]), "scales must be positive: one number, 2"),
        (lambda: GaussianMixture([[1.0], [2.0]], scales=0.0), "scales must be positive"),
        (lambda: GaussianMixture([[1.0], [2.0]], weights=[1.0]), "weights must be 2 positive numbers"),
        (lambda: GaussianMixture([[1.0], [2.0]], weights=[1.0, 0.0]), "weights must be 2 positive numbers"),
        (lambda: GaussianMixture40(dim=0), "dim must be"),
        (lambda: GaussianMixture40(scale=-1.0), "scale must be positive"),
        (lambda: GaussianMixture40(seed=-1), "seed must be"),
        (lambda: Funnel(dim=1), "dim must be a whole number of at least 2"),
        (lambda: Funnel(scale=0.0), "scale must be positive"),
        (lambda: ManyWell(dim=7), "dim must be even"),
        (lambda: ManyWell(dim=0), "dim must be"),
        (lambda: DoubleWell(num_wells=0), "num_wells must be"),
        (lambda: DoubleWell(delta=-1.0), "delta must be positive"),
        (lambda: DoubleWell(num_wells=5, dim=4), "dim must be at least num_wells = 5, got 4"),
        (lambda: LogisticRegression([1.0], [1]), "design must be N rows of D numbers"),
        (lambda: LogisticRegression([[1.0], [math.inf]], [1, 0]), "design must be"),
        (lambda: LogisticRegression([[1.0], [2.0]], [1]), "labels must be 2 zeros and ones"),
        (lambda: LogisticRegression([[1.0], [2.0]], [1, 2]), "labels must be 2 zeros and ones"),
        (lambda: LogisticRegression([[1.0], [2.0]], [1, 0], prior_scale=0.0), "prior_scale must be positive"),
        (lambda: BreastCancer(prior_scale=-1.0), "prior_scale must be positive"),
        (lambda: LennardJones(1), "num_particles must be a whole number of at least 2"),
        (lambda: LennardJones(13, trap=0.0), "trap must be positive"),
        (lambda: LennardJones(13, epsilon=-1.0), "epsilon must be positive"),
        (lambda: MuellerBrown(beta=0.0), "beta must be positive"),
        (lambda: Phi4(6), "shape must be the numbers of sites, such as (6, 6), got 6"),
        (lambda: Phi4((6, 0)), "shape must be"),
        (lambda: Phi4((6, 6), coupling=-1.0), "coupling must be at least 0"),
        (lambda: Phi4((6, 6), mass_squared=-1.0, coupling=0.0), "the squared mass must be positive"),
        (lambda: Phi4((6, 6), mass_squared="a"), "mass_squared must be a number"),
        (lambda: Phi4Hopping((6, 6), kappa=0.3, coupling=0.0), "kappa must be below 1 / (2 d)"),
        (lambda: U1Gauge((8,)), "shape must be two numbers of sites, such as (8, 8)"),
        (lambda: U1Gauge((8, 1)), "shape must be a whole number of at least 2"),
        (lambda: XYModel((8, 8), beta=-1.0), "beta must be positive"),
        (lambda: VonMisesMixture(dim=0), "dim must be"),
        (lambda: VonMisesMixture(locations=[0.0]), "must be of one length"),
        (lambda: VonMisesMixture(concentrations=[1.0, 1e-9]), "must be positive, at least 1e-6"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- the command line and the import


@pytest.mark.parametrize(
    "config, dim",
    [
        ({"class_path": "GaussianMixture9"}, 2),
        ({"class_path": "targets.GaussianMixture40", "init_args": {"dim": 5, "scale": 2}}, 5),
        ({"class_path": "Gaussian", "init_args": {"mean": [0, 1.5], "covariance": 2}}, 2),
        ({"class_path": "Gaussian", "init_args": {"mean": [0, 1.5], "covariance": [1, 2.5]}}, 2),
        ({"class_path": "Gaussian", "init_args": {"mean": [0, 1], "covariance": [[2, 0.5], [0.5, 1]]}}, 2),
        ({"class_path": "GaussianMixture", "init_args": {"means": [[0, 1], [2, 3]], "scales": [1, 2]}}, 2),
        ({"class_path": "Funnel", "init_args": {"dim": 4, "scale": 1}}, 4),
        ({"class_path": "ManyWell", "init_args": {"dim": 8}}, 8),
        ({"class_path": "DoubleWell", "init_args": {"num_wells": 2, "delta": 3, "dim": 4}}, 4),
        ({"class_path": "LogisticRegression", "init_args": {"design": [[1, 2], [3, 4]], "labels": [0, 1]}}, 2),
        ({"class_path": "VonMisesMixture", "init_args": {"dim": 3, "weights": [1, 2]}}, 3),
        ({"class_path": "DoubleWell4"}, 8),
        ({"class_path": "LennardJones", "init_args": {"num_particles": 5, "trap": 2}}, 15),
        ({"class_path": "MuellerBrown", "init_args": {"beta": 1}}, 2),
        ({"class_path": "Phi4", "init_args": {"shape": [4, 6], "coupling": 8}}, 24),
        ({"class_path": "Phi4Hopping", "init_args": {"shape": [4, 6], "kappa": 0.3}}, 24),
        ({"class_path": "U1Gauge", "init_args": {"shape": [4, 4], "beta": 2}}, 32),
        ({"class_path": "XYModel", "init_args": {"shape": [5], "beta": 2}}, 5),
        ({"class_path": "BreastCancer", "init_args": {"centred": False, "prior_scale": 10}}, 31),
    ],
    ids=lambda value: str(value.get("class_path")) if isinstance(value, dict) else "",
)
def test_command_line_builds_it(config, dim):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Target, "target")
    # `instantiate` is the name from jsonargparse 4.49 on
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    target = instantiate(parser.parse_object({"target": config})).target
    assert isinstance(target, Target) and target.dim == dim
