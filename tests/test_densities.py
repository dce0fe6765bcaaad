"""Densities of the benchmarks: each is what it says, and its stated log Z is found by quadrature or known draws."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Cauchy, Dirichlet, Independent, MixtureSameFamily, Normal, StudentT

from diffsampler import Target
from examples.benchmarks.calibration import ALL_IMPROPER, FORTY, NAMED
from examples.benchmarks.densities import directions
from examples.benchmarks.improper import IMPROPER, ODD

Draws = tuple[Tensor, Tensor]
N = 40_000


def test_there_are_as_many_as_said() -> None:
    assert len(FORTY) == 40 and len(IMPROPER) == 12 and len(ODD) == 13
    assert len({**NAMED, **ALL_IMPROPER, **ODD}) == len(NAMED) + 25


@pytest.mark.parametrize("name", [*NAMED, *IMPROPER, *ODD])
def test_densities_are_what_they_say(name: str, generator: torch.Generator) -> None:
    target = {**NAMED, **ALL_IMPROPER, **ODD}[name]()
    assert f"{target.dim}-d" in name
    assert (target.log_z is None) if name in IMPROPER else math.isfinite(target.log_z)
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(4000, 3, target.dim, generator=generator).to(dtype)
        log_prob = target.log_prob(x)
        assert log_prob.shape == (4000, 3) and log_prob.dtype == dtype
        assert log_prob.isfinite().any() or target.log_prob(30 * x).isfinite().any()
        assert name.startswith("not a number") or not log_prob.isnan().any()


def normals(mean: Tensor | float, std: Tensor | float, n: int = N) -> Draws:
    """Independent coordinates and the log-density of all."""
    distribution = Normal(torch.as_tensor(mean), torch.as_tensor(std))
    y = distribution.sample((n,))
    return y, distribution.log_prob(y).sum(-1)


def mixture(means: list[list[float]], stds: list[float], weights: list[float], degrees: float = 200.0) -> Draws:
    """Products of Student t."""
    means, stds = torch.tensor(means), torch.tensor(stds).unsqueeze(-1)
    modes = Independent(StudentT(degrees, means, stds), 1)
    distribution = MixtureSameFamily(Categorical(torch.tensor(weights)), modes)
    x = distribution.sample((N,))
    return x, distribution.log_prob(x)


def ancestral(*conditionals: Callable[[Tensor], tuple[Tensor, float]]) -> Draws:
    """Coordinates one after the other, each a Gaussian given those before it."""
    x, log_prob = torch.zeros(N, 0), torch.zeros(N)
    for conditional in conditionals:
        mean, std = conditional(x)
        distribution = Normal(mean.expand(N) if isinstance(mean, Tensor) else torch.full((N,), mean), std)
        y = distribution.sample()
        x, log_prob = torch.cat([x, y.unsqueeze(-1)], -1), log_prob + distribution.log_prob(y)
    return x, log_prob


def rosenbrock(depth: int) -> Draws:
    chain = [0, *range(1, depth), 0, *range(depth + 1, 2 * depth)]
    return ancestral(lambda x: (1.0, 3.5), *(lambda x, i=i: (x[:, i] ** 2, 0.33) for i in chain))


def corner() -> Draws:
    """Of both modes, the one in the corner folded back into the box."""
    distribution = Normal(torch.zeros(5), torch.ones(5))
    in_corner = torch.rand(N, 1) < 0.9
    z = distribution.sample((N,))
    x = torch.where(in_corner, 1 - 0.033 * z.abs(), 0.5 + 0.11 * z)
    narrow = (Normal(1.0, 0.033).log_prob(x) + math.log(2)).sum(-1).where((x < 1).all(-1), torch.tensor(-math.inf))
    broad = Normal(0.5, 0.11).log_prob(x).sum(-1)
    return x, torch.logaddexp(math.log(0.9) + narrow, math.log(0.1) + broad)


def face() -> Draws:
    at_face, n = torch.rand(N, 1) < 0.7, torch.randn(N, 5)
    scales = torch.tensor([0.022, 0.055, 0.055, 0.055, 0.055])
    means = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5])
    x = torch.where(at_face, means + scales * n, 0.4 + 0.066 * n)
    narrow, broad = Normal(means, scales).log_prob(x).sum(-1), Normal(0.4, 0.066).log_prob(x).sum(-1)
    return x, torch.logaddexp(math.log(0.7) + narrow, math.log(0.3) + broad)


def groups(effects: list[float], errors: list[float], mu: Draws, log_tau: Draws) -> Draws:
    """mu and log tau by guess, the effects as they are given these and the data."""
    precision = torch.tensor(errors) ** -2 + (-2 * log_tau[0]).exp()
    mean = (torch.tensor(effects) * torch.tensor(errors) ** -2 + mu[0] * (-2 * log_tau[0]).exp()) / precision
    theta, log_prob = Normal(mean, precision**-0.5), mu[1] + log_tau[1]
    drawn = theta.sample()
    return torch.cat([mu[0], log_tau[0], drawn], -1), log_prob + theta.log_prob(drawn).sum(-1)


def schools() -> Draws:
    effects, errors = [28.0, 8, -3, 7, -1, 1, 18, 12], [15.0, 10, 16, 11, 9, 11, 10, 18]
    tau = StudentT(5.0, torch.tensor([0.7]), 1.3)
    log_tau = tau.sample((N,))
    return groups(effects, errors, normals([4.4], [3.7]), (log_tau, tau.log_prob(log_tau).sum(-1)))


def ten_groups() -> Draws:
    effects = [2.1, 9.3, 5.5, -1.0, 12.8, 6.4, 3.7, 8.9, 0.6, 5.0]
    errors = [1.0, 2.0, 0.5, 1.5, 3.0, 1.0, 2.0, 0.7, 1.0, 4.0]
    return groups(effects, errors, normals([5.0], [1.8]), normals([1.3], [0.35]))


def hole() -> Draws:
    z, log_prob = normals(torch.zeros(6), torch.full((6,), 1.2), 4 * N)
    rotation, scales = directions(6, 7), torch.logspace(-1, 1, 6)
    return 2 + (scales * z) @ rotation.T, log_prob - scales.log().sum()


def twisted() -> Draws:
    stds = [0.1, 1.0, 5.0, 20.0]
    free = [lambda x: (0.0, 1.6)] * 4
    bends = [lambda x: 0.4 * x[:, 0] ** 2, lambda x: (2 * x[:, 1]).sin(), lambda x: x[:, 2] * x[:, 3] / 2]
    bends.append(lambda x: 0.1 * x[:, 3] ** 3)
    bent = [lambda x, bend=bend: (bend(x), 0.43) for bend in bends]
    y, log_prob = ancestral(*free, *bent, *(lambda x, std=std: (0.0, 1.07 * std) for std in stds))
    return 3 + y @ directions(12, 8).T, log_prob


def ring() -> Draws:
    polar, log_prob = normals([5.0, 0.0], [0.25, 0.35])
    angle = 2 * math.pi * torch.rand(N)
    y = torch.stack([polar[:, 0] * angle.cos(), polar[:, 0] * angle.sin(), polar[:, 1]], -1)
    return 1 + y @ directions(3, 9).T, log_prob - (2 * math.pi * polar[:, 0]).log()


def labels() -> Draws:
    """Wide around the six, and wider around them all."""
    centres = torch.tensor([-3.4, 1.3, 4.8])[torch.cartesian_prod(*[torch.arange(3)] * 3)]
    return mixture([*centres.tolist(), [0.0] * 3], [0.9] * 27 + [5.0], [0.8 / 27] * 27 + [0.2])


def dirichlet() -> Draws:
    distribution = Dirichlet(torch.tensor([0.75, 0.9, 2.6, 7.0]))
    shares = distribution.sample((N,))
    return shares[:, :3], distribution.log_prob(shares)


def scattered(means: list[float], stds: list[float], degrees: float) -> Draws:
    distribution = StudentT(degrees, torch.tensor(means), torch.tensor(stds))
    x = distribution.sample((N,))
    return x, distribution.log_prob(x).sum(-1)


def far_modes() -> Draws:
    means = [[0, 0, 0, 0], [30, -10, 5, 0], [-20, 0, 40, 5], [5, 25, -15, -35], [-30, -20, 0, 10]]
    return mixture([[float(m) for m in mean] for mean in means], [1.1, 0.55, 2.2, 0.45, 1.6], [0.2] * 5)


def log_normal() -> Draws:
    y, log_prob = normals([0.0, 1.0], [1.2, 2.4])
    return y.exp(), log_prob - y.sum(-1)


def skewed(dim: int, std: float) -> Draws:
    v, log_prob = normals([0.0], [std])
    rest = Normal(torch.zeros(N, dim - 1), (v / 2).exp() * 1.1)
    y = rest.sample()
    return torch.cat([v, y], -1), log_prob + rest.log_prob(y).sum(-1)


KNOWN_DRAWS: dict[str, Callable[[], Draws]] = {
    "mode in a corner, 5-d": corner,
    "hybrid Rosenbrock, 5-d": lambda: rosenbrock(2),
    "hybrid Rosenbrock, 7-d": lambda: rosenbrock(3),
    "eight schools, 10-d": schools,
    "ordered Gaussians, 3-d": lambda: normals([4.0, 3.0, 5.0], [2.1, 0.55, 3.2], 4 * N),
    "Dirichlet, 3-d": dirichlet,
    "half a Gaussian with a hole, 6-d": hole,
    "five far modes, 4-d": far_modes,
    "label switching, 3-d": labels,
    "twisted and rotated, 12-d": twisted,
    "ring, 3-d": ring,
    "ten groups, 12-d": ten_groups,
    "heavy-tailed modes, 2-d": lambda: mixture([[0, 0], [15, -8], [-6, 20.0]], [1, 0.3, 2.0], [0.4, 0.3, 0.3], 2.0),
    "two near modes, 64-d": lambda: mixture([[0.0] * 64, [0.75] * 64], [1.04, 0.83], [0.6, 0.4]),
    "mode on a face, 5-d": face,
    "Student t product, 5-d": lambda: scattered([0.0, 5.0, -20.0, 100.0, 1.0], [1.0, 0.1, 3.0, 20.0, 0.5], 2.0),
    "funnel, 10-d": lambda: skewed(10, 1.6),
    "bent, 4-d": lambda: ancestral(
        lambda x: (30.0, 3.2),
        lambda x: (0.2 * (x[:, 0] - 30) ** 2 - 50, 0.32),
        lambda x: (0.0, 0.6),
        lambda x: (7.0, 4.4),
    ),
    "banana, 6-d": lambda: ancestral(
        *[lambda x: (0.0, 1.6)] * 3, *(lambda x, i=i: (x[:, i] ** 2 - 2.25, 0.55) for i in range(3))
    ),
    "funnel, 6-d": lambda: skewed(6, 2.1),
    "two far modes, 8-d": lambda: mixture([[-6.0] * 8, [4.0] * 8], [1.1, 0.65], [0.5, 0.5]),
    "three unequal modes, 4-d": lambda: mixture(
        [[0.0] * 4, [8.0, 0.0, 3.0, 0.0], [-3.0, 9.0, 0.0, -5.0]], [2.2, 0.44, 1.1], [0.4, 0.3, 0.3]
    ),
    "log-normal, 2-d": log_normal,
    "Laplace, 3-d": lambda: scattered([0.0, 4.0, 0.0], [1.0, 0.1, 30.0], 3.0),
    "stretched exponential, 2-d": lambda: scattered([0.0, 0.0], [4.0, 40.0], 1.0),
}


@pytest.mark.parametrize("name", list(KNOWN_DRAWS))
def test_stated_log_z_agrees_with_importance_weights_of_known_draws(name: str) -> None:
    target: Target = {**NAMED, **ODD}[name]()
    x, log_prob = KNOWN_DRAWS[name]()
    log_weight = target.log_prob(x) - log_prob
    found = float(log_weight.logsumexp(0)) - math.log(len(x))
    error = float((log_weight - found).exp().std()) / math.sqrt(len(x))
    assert error < 0.03 and abs(found - target.log_z) < 4.5 * error + 1e-9, (found, target.log_z, error)


@pytest.mark.parametrize(
    ("name", "low", "high", "num"),
    [
        ("modes on edges, 2-d", 0.0, 1.0, 1000),
        ("eggbox, 2-d", 0.0, 10 * math.pi, 1500),
        ("twelve narrow modes, 2-d", -11.0, 11.0, 800),
        ("Gamma-Poisson, 1-d", 0.0, 8.0, 2000),
        ("Beta-Bernoulli, 1-d", -100.0, 30.0, 20_000),
        ("flat box, 2-d", -2.0, 4.0, 600),
        ("not a number outside a disc, 2-d", -1.5, 3.5, 1000),
        ("scale of 1e14, 2-d", -1e15, 1e15, 300),
        ("scale of 1e-10, 2-d", -1e-9, 1e-9, 300),
    ],
)
def test_stated_log_z_agrees_with_midpoints(name: str, low: float, high: float, num: int) -> None:
    target, step = {**NAMED, **ODD}[name](), (high - low) / num
    line = low + step * (torch.arange(num) + 0.5)
    x = torch.stack(torch.meshgrid(*[line] * target.dim, indexing="ij"), -1)
    total = float(target.log_prob(x).nan_to_num(-math.inf).flatten().logsumexp(0)) + target.dim * math.log(step)
    assert abs(total - target.log_z) < 1e-3


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("log-gamma, 10-d", -40.0, 6.0),
        ("skew normal, 5-d", -9.0, 9.0),
        ("half-normal, 6-d", 0.0, 9.0),
        ("logit of beta, 8-d", -60.0, 60.0),
        ("double wells, 8-d", -9.0, 9.0),
    ],
)
def test_stated_log_z_of_products_agrees_with_midpoints(name: str, low: float, high: float) -> None:
    # Along each coordinate in turn, the others held.
    target, num = NAMED[name](), 10_000
    step, centre = (high - low) / num, torch.full((target.dim,), 0.5)
    total = (1 - target.dim) * float(target.log_prob(centre))
    for i in range(target.dim):
        x = centre.repeat(num, 1)
        x[:, i] = low + step * (torch.arange(num) + 0.5)
        total += float(target.log_prob(x).logsumexp(0)) + math.log(step)
    assert abs(total - target.log_z) < 1e-4


@pytest.mark.parametrize(
    ("name", "centre"),
    [
        ("Student t, 8-d", 0.0),
        ("Student t of 2 degrees, 5-d", 3.0),
        ("Student t of 3 degrees, 5-d", 3.0),
        ("tail of 1/x^2, 2-d", 0.0),
    ],
)
def test_stated_log_z_of_spheres_agrees_with_a_sum_over_radii(name: str, centre: float) -> None:
    target, step = {**NAMED, **ODD, **ALL_IMPROPER}[name](), 0.01
    log_radius = torch.arange(-12.0, 16.0, step)
    x = torch.full((len(log_radius), target.dim), centre)
    x[:, 0] += log_radius.exp()
    log_surface = math.log(2) + target.dim / 2 * math.log(math.pi) - math.lgamma(target.dim / 2)
    terms = target.log_prob(x) + target.dim * log_radius + log_surface + math.log(step)
    if target.log_z is None:  # as much from each factor of the radius, for ever
        assert abs(float(terms[-1] - terms[-500])) < 1e-6
    else:
        assert abs(float(terms.logsumexp(0)) - target.log_z) < 1e-4


@pytest.mark.parametrize("name", [name for name in ODD if "1-d" in name])
def test_stated_log_z_of_heavy_tails_agrees_with_quantiles(name: str) -> None:
    # Midpoints in the quantiles of a Cauchy: heavier tails than all but its own, on which the ratio is bounded.
    target, quantiles = ODD[name](), (torch.arange(200_000) + 0.5) / 200_000
    proposal = Cauchy(1.0, 2.0)
    x = proposal.icdf(quantiles).unsqueeze(-1)
    found = (target.log_prob(x) - proposal.log_prob(x).squeeze(-1)).exp().mean().log()
    assert abs(float(found) - target.log_z) < 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "shifted by 100, 4-d",
        "scales from 1e-3 to 1e3, 7-d",
        "condition 1e7 about 50, 20-d",
        "linear regression, 15-d",
        "autoregression, 64-d",
        "badly scaled regression, 24-d",
        "condition 1e6 about 200, 30-d",
        "constant of 1e8, 2-d",
    ],
)
def test_stated_log_z_of_gaussians_agrees_with_their_curvature(name: str) -> None:
    target = NAMED[name]()
    start = torch.zeros(target.dim)
    precision = -torch.autograd.functional.hessian(lambda x: target.log_prob(x), start)
    scale = precision.diagonal().rsqrt()
    scaled = scale.unsqueeze(-1) * precision * scale
    mode = start + scale * torch.linalg.solve(scaled, scale * target.score(start))
    found = target.log_prob(mode) + 0.5 * target.dim * math.log(2 * math.pi)
    found = found - 0.5 * torch.linalg.slogdet(scaled)[1] + scale.log().sum()
    assert abs(float(found) - target.log_z) < 1e-4 + 1e-14 * abs(target.log_z)


@pytest.mark.parametrize("name", [name for name in IMPROPER if "tail" not in name])
def test_improper_densities_do_not_fall_where_they_say(name: str, generator: torch.Generator) -> None:
    directions_of = {
        "flat ridge": [1.0, -1.0],
        "constant": [1.0, 5.0, -3.0],
        "two angles": [2 * math.pi, 0.0],
        "particles in the plane": [1.0, 2.0] * 4,
        "energy without": None,
        "rotated ridge": directions(5, 5)[:, 4].tolist(),
        "angle in": [0.0, 360.0, 0.0],
        "particles in space": [1.0, 2.0, 3.0] * 4,
        "softmax": [1.0] * 4,
        "black box": None,
    }
    (along,) = (value for start, value in directions_of.items() if name.startswith(start))
    target = ALL_IMPROPER[name]()
    x = torch.randn(20, target.dim, generator=generator)
    if along is None:
        assert (target.log_prob(10 * x) > target.log_prob(x)).all()
    else:
        torch.testing.assert_close(target.log_prob(x + 3 * torch.tensor(along)), target.log_prob(x))
