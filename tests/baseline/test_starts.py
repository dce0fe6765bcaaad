"""What tempered SMC starts from: normalised densities that their own walks leave unchanged."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, Uniform

from diffsampler.baseline.starts import ProductStart, Start, StationaryGaussian, UniformAngles, moments_on, widest
from diffsampler.spaces import Circle, Euclidean, Lattice, Links, Particles, Product, Space

FIELDS, REALS, CLUSTER = Lattice((3, 2), Euclidean(2)), Euclidean(3), Particles(3, 2)
MIXED = Product([Circle(2), REALS, CLUSTER, Circle(1)])
# Standard errors: beyond 5.5 lie 4e-8 of a normal, 1e-5 for the three hundred figures of the largest case.
BOUND = 5.5


def points(space: Space, n: int = 40, seed: int = 1) -> Tensor:
    """Correlated points away from the origin, float64, with shape (n, D)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(space.dim, space.dim, generator=generator, dtype=torch.float64)
    return 0.7 + torch.randn(n, space.dim, generator=generator, dtype=torch.float64) @ mixing


def fitted(space: Space) -> Start:
    return widest(space, 1.7).fitted_to(points(space), 1.3)


def law_of(start: StationaryGaussian) -> MultivariateNormal | Independent:
    if start.root.ndim:
        return MultivariateNormal(start.loc, start.root @ start.root.T)
    return Independent(Normal(start.loc, start.root.expand_as(start.loc)), 1)


GAUSSIAN = [REALS, CLUSTER, FIELDS, Lattice((4,))]


@pytest.mark.parametrize("make", [lambda space: widest(space, 1.7), fitted], ids=["widest", "fitted"])
@pytest.mark.parametrize("space", GAUSSIAN, ids=repr)
def test_gaussians_are_those_of_torch(space: Space, make: Callable[[Space], StationaryGaussian]) -> None:
    start, x = make(space), points(space, seed=2)
    assert isinstance(start, StationaryGaussian) and start.centre.shape == (space.dim,)
    x = x.requires_grad_()
    expected = law_of(start).log_prob(x)
    log_prob, score = start.log_prob_and_score(x.detach())
    torch.testing.assert_close(log_prob, expected.detach())
    torch.testing.assert_close(score, torch.autograd.grad(expected.sum(), x)[0])


def test_angles_are_uniform_whichever_turn_they_are_in() -> None:
    start = widest(Links((2, 2)), 3.0)
    assert isinstance(start, UniformAngles) and start.fitted_to(points(Circle(8)), 1.4) is start
    x = 3 * points(Circle(8))
    log_prob, score = start.log_prob_and_score(x)
    inside = Independent(Uniform(torch.full((8,), -math.pi), torch.full((8,), math.pi)), 1).log_prob(torch.zeros(8))
    torch.testing.assert_close(log_prob, inside.expand(40))
    assert (score == 0).all() and start.units(x) is None
    draws = start.sample(1000, torch.Generator().manual_seed(0))
    assert draws.abs().max() <= math.pi and draws.abs().max() > 3.1


def test_a_product_is_the_product_of_its_parts() -> None:
    start, x = fitted(MIXED), points(MIXED, seed=2)
    assert isinstance(start, ProductStart) and start.centre.shape == (MIXED.dim,)
    log_prob, score = start.log_prob_and_score(x)
    parts = [part.log_prob_and_score(of) for part, of in zip(start.parts, x.split([2, 3, 4, 1], -1), strict=True)]
    torch.testing.assert_close(log_prob, sum(value for value, _ in parts))
    torch.testing.assert_close(score, torch.cat([value for _, value in parts], -1))
    # Each part is fitted to its own coordinates.
    loc, root = moments_on(REALS, points(MIXED)[:, 2:5])
    torch.testing.assert_close(start.parts[1].loc, loc)
    torch.testing.assert_close(start.parts[1].root, 1.3 * root)


def statistics(start: Start, x: Tensor) -> Tensor:
    """Figures with known means under a start, one by one of mean 0 and variance 1, with shape (n, k)."""
    if isinstance(start, ProductStart):
        parts = zip(start.parts, x.split(start.sizes, -1), strict=True)
        return torch.cat([statistics(part, of) for part, of in parts], -1)
    if isinstance(start, UniformAngles):
        # Of cos, sin and cos 2 the squares have mean 1/2; of neighbours the difference is uniform too.
        figures = [x.cos(), x.sin(), (2 * x).cos(), (x - x.roll(1, -1)).cos()[:, 1:]]
        return math.sqrt(2) * torch.cat(figures, -1)
    inverse = torch.linalg.inv(start.root) if start.root.ndim else 1 / start.root
    white = (x - start.loc) @ inverse if start.root.ndim else (x - start.loc) * inverse
    products = [white[:, k:] * white[:, : white.shape[1] - k] for k in range(1, white.shape[1])]
    return torch.cat([white, (white.square() - 1) / math.sqrt(2), *products], -1)


@pytest.mark.parametrize("space", [*GAUSSIAN, Circle(3), MIXED], ids=repr)
def test_walks_leave_the_start_unchanged(space: Space, generator: torch.Generator) -> None:
    start, n = fitted(space), 20_000
    x = start.sample(n, generator)
    angles = 0.5 * math.pi * torch.rand(n, generator=generator)
    for moved in (x, start.walk(x, angles, generator)):
        assert (statistics(start, moved).mean(0).abs() < BOUND / n**0.5).all()
    # By a right angle it is a fresh draw, from wherever.
    fresh = start.walk(x[:1].expand(n, -1), torch.full((n,), 0.5 * math.pi, dtype=torch.float64), generator)
    assert (statistics(start, fresh).mean(0).abs() < BOUND / n**0.5).all()
    assert torch.equal(start.walk(x, torch.zeros(n), generator), x)


@pytest.mark.parametrize("space", GAUSSIAN, ids=repr)
def test_walks_turn_by_their_angle(space: Space, generator: torch.Generator) -> None:
    # x' = loc + cos a (x - loc) + sin a noise, of which mean and variance are known, from one point.
    start, n, angle = fitted(space), 20_000, 0.4
    x = points(space, 1, seed=3)
    moved = start.walk(x.expand(n, -1), torch.full((n,), angle, dtype=torch.float64), generator)
    rest = start.loc + (moved - start.loc - math.cos(angle) * (x - start.loc)) / math.sin(angle)
    assert (statistics(start, rest).mean(0).abs() < BOUND / n**0.5).all()


def test_walks_of_angles_go_no_farther_than_said(generator: torch.Generator) -> None:
    start = UniformAngles(3)
    x = start.sample(5000, generator)
    step = (start.walk(x, torch.full((5000,), 0.3, dtype=torch.float64), generator) - x).abs()
    assert 0.59 < step.max() <= 0.6


def all_shifts(space: Lattice, x: Tensor) -> Tensor:
    axes = tuple(range(-len(space.shape), 0))
    sites = torch.cartesian_prod(*(torch.arange(size) for size in space.shape)).view(-1, len(axes)).tolist()
    return torch.stack([space.fields(x).roll(site, axes).flatten(1) for site in sites])


@pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])
@pytest.mark.parametrize(
    "space",
    [FIELDS, Lattice((5,)), Lattice((4, 3)), Lattice((2, 3, 2), Euclidean(3)), Lattice((1, 2))],
    ids=repr,
)
def test_moments_on_a_lattice_are_averages_over_all_shifts(space: Lattice, weighted: bool) -> None:
    x = points(space)
    weight = torch.rand(len(x), generator=torch.Generator().manual_seed(4)).double() if weighted else None
    share = torch.full((len(x),), 1 / len(x)).double() if weight is None else weight / weight.sum()
    shifted = all_shifts(space, x)
    mean = torch.einsum("n,snd->d", share, shifted) / len(shifted)
    residual = shifted - mean
    covariance = torch.einsum("n,sni,snj->ij", share, residual, residual) / len(shifted)
    loc, root = moments_on(space, x, weight)
    torch.testing.assert_close(loc, mean)
    torch.testing.assert_close(root @ root, covariance)
    torch.testing.assert_close(root, root.T)
    assert (torch.linalg.eigvalsh(root) > 0).all()


@pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])
def test_moments_of_reals_particles_and_products(weighted: bool) -> None:
    x = points(MIXED)
    weight = 3 * torch.rand(len(x), generator=torch.Generator().manual_seed(4)).double() if weighted else None
    share = torch.full((len(x),), 1 / len(x)).double() if weight is None else weight / weight.sum()
    reals, cluster = x[:, 2:5], x[:, 5:9]
    loc, root = moments_on(REALS, reals, weight)
    residual = reals - share @ reals
    torch.testing.assert_close(loc, share @ reals)
    torch.testing.assert_close(root @ root, residual.T @ (share.unsqueeze(-1) * residual))
    zero, size = moments_on(CLUSTER, cluster, weight)
    torch.testing.assert_close(size.square(), share @ cluster.square().mean(-1))
    assert (zero == 0).all()
    # A unit of angles is 1, and blocks know nothing of each other.
    together, block = moments_on(MIXED, x, weight)
    torch.testing.assert_close(together, torch.cat([torch.zeros(2), loc, torch.zeros(5)]))
    torch.testing.assert_close(block, torch.block_diag(torch.eye(2), root, size * torch.eye(4), torch.eye(1)))
    torch.testing.assert_close(fitted(MIXED).units(x, weight), block)
    torch.testing.assert_close(fitted(CLUSTER).units(cluster, weight), size)


def test_few_points_do_not_tell_directions_apart() -> None:
    # Five points of three coordinates, fewer than twice as many: correlations count half, widths do not.
    x = points(REALS, 5)
    _, root = moments_on(REALS, x)
    exact = torch.cov(x.T, correction=0)
    torch.testing.assert_close(root @ root, 0.5 * (exact + torch.diag(exact.diagonal())))


def test_points_that_agree_leave_a_width() -> None:
    for space in (REALS, FIELDS):
        x = torch.ones(30, space.dim).double()
        x[:, 0] += torch.arange(30)
        start = widest(space, 1.0).fitted_to(x, 1.0)
        assert all(value.isfinite().all() for value in start.log_prob_and_score(x)), space
