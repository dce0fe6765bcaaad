"""Mixtures of bent, heavy-tailed parts: normalised, drawn from as they say, and left alone by their moves."""

import math

import pytest
import torch
from helpers import Z_BOUND
from torch import Tensor

from diffsampler import FunctionTarget
from diffsampler.baseline import GaussianComponents
from diffsampler.baseline.curved import CurvedMap, fit_map
from diffsampler.baseline.moves import AnnealedPath, PriorMove, Rung
from diffsampler.baseline.part import Part, fit_part, gaussian_parts
from diffsampler.baseline.proposal import Proposal, fit_proposal
from diffsampler.counted import CountedTarget

N = 40_000


def banana_map() -> CurvedMap:
    z = torch.randn(2000, 2, generator=torch.Generator().manual_seed(2))
    return fit_map(torch.stack([z[:, 0], 0.6 * z[:, 1] + 0.5 * z[:, 0].square()], -1))


def make_proposal() -> Proposal:
    """A banana, a funnel the other way round, and a wide part with few degrees."""
    z = torch.randn(2000, 2, generator=torch.Generator().manual_seed(3))
    funnel = fit_map(torch.stack([z[:, 0] * (0.5 * z[:, 1]).exp() + 2.0, z[:, 1]], -1))
    assert banana_map().is_bent and funnel.is_bent
    wide = CurvedMap.affine(torch.tensor([-1.0, 0.5]), torch.tensor([[1.5, 0.4], [0.0, 0.8]]))
    return Proposal([Part(banana_map(), 30.0), Part(funnel, 100.0), Part(wide, 3.0)], torch.tensor([2.0, 1.0, 1.0]))


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    torch.set_default_dtype(torch.float64)
    return make_proposal()


@pytest.fixture(scope="module")
def grid(proposal: Proposal) -> tuple[Tensor, Tensor]:
    """Points and cells, log of the density included: x = sinh(u), so that a power of x falls exponentially in u."""
    u = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    x = torch.cartesian_prod(u.sinh(), u.sinh())
    log_cell = 2 * math.log(float(u[1] - u[0])) + torch.cartesian_prod(u.cosh(), u.cosh()).log().sum(-1)
    return x, proposal.log_prob(x) + log_cell


def figures(x: Tensor) -> Tensor:
    """Bounded functions that tell where points are, near and far, with shape (n, 6)."""
    a, b = x.unbind(-1)
    radius = x.norm(dim=-1)
    return torch.stack([a.tanh(), b.tanh(), (a * b).tanh(), (2 * a - b).cos(), 1 / (1 + radius), radius > 6.0], -1)


def assert_drawn_from(x: Tensor, grid: Tensor, log_mass: Tensor, what: str) -> None:
    """Six z-tests, 7e-6 each: 4e-5 together."""
    expected = (log_mass - log_mass.logsumexp(0)).exp() @ figures(grid)
    found = figures(x)
    z = (found.mean(0) - expected) / (found.std(0) / math.sqrt(len(x)))
    assert z.abs().max() < Z_BOUND, (what, z)


def test_is_normalised(grid: tuple[Tensor, Tensor]) -> None:
    # Beyond 4000 there is less than 1e-9; the rule errs where a part is narrow, by what halving the step changes.
    assert abs(float(grid[1].logsumexp(0))) < 1e-4


@pytest.mark.slow
def test_draws_have_its_density(proposal: Proposal, grid: tuple[Tensor, Tensor], generator: torch.Generator) -> None:
    assert_drawn_from(proposal.sample(N, generator), *grid, "draws")
    # A part alone, too.
    log_mass = grid[1] - proposal.log_prob(grid[0])
    for k, part in enumerate(proposal.parts):
        assert_drawn_from(part.sample(N, generator), grid[0], log_mass + part.log_prob(grid[0]), f"draws of part {k}")


@pytest.mark.parametrize("angle", [0.3, 1.2, 0.5 * math.pi])
def test_walks_leave_it_alone(
    angle: float, proposal: Proposal, grid: tuple[Tensor, Tensor], generator: torch.Generator
) -> None:
    x = proposal.sample(N, generator)
    first = x
    for _ in range(3):
        x = proposal.walk(x, torch.full((N,), angle), generator)
    assert_drawn_from(x, *grid, f"after three walks by {angle}")
    # Reversible, as Metropolis' ratio without a proposal density takes for granted: E[f(x) g(y)] = E[g(x) f(y)].
    # Fifteen pairs of figures, 1e-4 together.
    y = proposal.walk(first, torch.full((N,), angle), generator)
    f, g = figures(first), figures(y)
    i, j = torch.triu_indices(6, 6, 1)
    difference = f[:, i] * g[:, j] - f[:, j] * g[:, i]
    z = difference.mean(0) / (difference.std(0) / math.sqrt(N))
    assert z.abs().max() < Z_BOUND, z


def test_the_score_is_the_gradient(proposal: Proposal, generator: torch.Generator) -> None:
    x = proposal.sample(20, generator)
    log_prob, score = proposal.log_prob_and_score(x)
    torch.testing.assert_close(log_prob, proposal.log_prob(x), rtol=1e-12, atol=1e-12)
    assert not score.requires_grad
    step = 1e-6 * torch.eye(2)
    expected = torch.stack([(proposal.log_prob(x + e) - proposal.log_prob(x - e)) / 2e-6 for e in step], -1)
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-5)


def test_mixing(proposal: Proposal, generator: torch.Generator) -> None:
    (other,) = gaussian_parts(GaussianComponents(torch.full((1, 2), 3.0), 0.5 * torch.eye(2)[None]))
    x = proposal.sample(50, generator)
    mixed = proposal.mixed_with(Proposal([other], torch.ones(1)), 0.2)
    torch.testing.assert_close(
        mixed.log_prob(x).exp(), 0.8 * proposal.log_prob(x).exp() + 0.2 * other.log_prob(x).exp()
    )


@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("size", [0.4, 1.0])
def test_prior_moves_leave_the_tempered_density_alone(
    beta: float, size: float, proposal: Proposal, grid: tuple[Tensor, Tensor], generator: torch.Generator
) -> None:
    # R = prior exp(g) with a bounded g: of prior^(1 - b) R^b = prior exp(b g) there are exact draws, by rejection.
    def tilt(x: Tensor) -> Tensor:
        return 2 * (x[..., 0] + 0.5 * x[..., 1]).sin()

    target = FunctionTarget(lambda x: proposal.log_prob(x) + tilt(x), dim=2)
    x = proposal.sample(N, generator)
    x = x[torch.rand(N, generator=generator) < (beta * (tilt(x) - 2)).exp()]
    path = AnnealedPath(CountedTarget(target), proposal, PriorMove())
    particles, rung = path.at(x), Rung(beta, torch.eye(2), 1.0, size)
    for _ in range(3):
        particles, acceptance = PriorMove().apply(path, particles, rung, generator)
    assert 0.2 < acceptance < 0.99 and (particles.x != x).any(-1).double().mean() > 0.6
    assert_drawn_from(particles.x, grid[0], grid[1] + beta * tilt(grid[0]), f"at {beta}")
    # What they carry belongs to where they are.
    torch.testing.assert_close(particles.log_prob, target.log_prob(particles.x))
    torch.testing.assert_close(particles.log_prior, proposal.log_prob(particles.x))


def test_a_fit_to_two_pieces_keeps_both(generator: torch.Generator) -> None:
    banana = banana_map()
    z = torch.randn(3000, 2, generator=generator)
    x = torch.cat([banana.forward(z[:2000])[0], 0.3 * z[2000:] + 20.0])
    label = (torch.arange(3000) >= 2000).long()
    spare = gaussian_parts(GaussianComponents(torch.tensor([[0.0, 0.0], [20.0, 20.0]]), torch.eye(2).expand(2, 2, 2)))
    fitted = fit_proposal(x, torch.ones(3000), label, spare)
    drawn = fitted.sample(N, generator)
    # Shares known from 3000 points to 0.009, five of them, and the part for all takes its 2 %.
    assert abs(float((drawn.norm(dim=-1) > 14).double().mean()) - 1 / 3) < 0.065
    # By weights of draws of the fit against the exact density.
    log_weight = torch.logaddexp(
        math.log(2 / 3) + log_image(banana, drawn),
        math.log(1 / 3) - 0.5 * ((drawn - 20.0) / 0.3).square().sum(-1) - math.log(2 * math.pi * 0.09),
    ) - fitted.log_prob(drawn)
    weight = log_weight.exp()
    assert abs(float(weight.mean()) - 1) < Z_BOUND * float(weight.std()) / math.sqrt(N)
    assert float(weight.sum().square() / weight.square().sum()) / N > 0.5


def log_image(found: CurvedMap, x: Tensor) -> Tensor:
    """The log-density of the image of N(0, I)."""
    z, log_det = found.inverse(x)
    return -0.5 * z.square().sum(-1) - math.log(2 * math.pi) * z.shape[1] / 2 - log_det


def test_light_pieces_are_kept() -> None:
    """Forty modes of 0.3 % each, known from some twenty draws: together an eighth of the mass."""
    generator = torch.Generator().manual_seed(1)
    places = 60 * torch.rand(41, 3, generator=generator) - 30
    share = torch.tensor([0.884] + [0.0029] * 40)
    label = torch.multinomial(share, 8000, replacement=True, generator=generator)
    x = places[label] + torch.randn(8000, 3, generator=generator)
    spare = gaussian_parts(GaussianComponents(places, torch.eye(3).expand(41, 3, 3)))
    found = fit_proposal(x, torch.ones(8000), label, spare)
    # Points of a piece that was left out are ten and more nats worse under the part for all.
    exact = torch.distributions.Normal(places, 1.0).log_prob(x.unsqueeze(1)).sum(-1).add(share.log()).logsumexp(-1)
    light = label > 0
    assert float((exact - found.log_prob(x))[light].mean()) < 1.0
    assert float((exact - found.log_prob(x))[~light].mean()) < 0.3


def test_a_covariance_from_few_points_is_no_better_than_the_one_known() -> None:
    """Of 40 dimensions by 200 draws: (D + 3) D / 4 n = 2.2 nats are lost by fitting them, none by what was known."""
    generator = torch.Generator().manual_seed(2)
    loc = torch.stack([torch.full((40,), -3.0), torch.full((40,), 3.0)])
    label = torch.randint(2, (400,), generator=generator)
    spare = gaussian_parts(GaussianComponents(loc, torch.eye(40).expand(2, 40, 40)))
    x, fresh = (loc[label] + torch.randn(400, 40, generator=generator) for _ in range(2))
    found = fit_proposal(x, torch.ones(400), label, spare)
    exact = torch.distributions.Normal(loc, 1.0).log_prob(fresh.unsqueeze(1)).sum(-1).logsumexp(-1) - math.log(2)
    assert float((exact - found.log_prob(fresh)).mean()) < 0.5


@pytest.mark.parametrize(("degrees", "expected"), [(3.0, {3.0}), (10.0, {10.0}), (math.inf, {1000.0})])
def test_parts_have_the_tails_of_their_points(degrees: float, expected: set[float], generator: torch.Generator) -> None:
    z = torch.randn(N, 3, generator=generator)
    if degrees < math.inf:
        half = torch.full((N, 1), 0.5 * degrees)
        z = z * (torch._standard_gamma(half, generator=generator) / half).rsqrt()
    wrong = torch.randn(N, 3, generator=generator) * torch.randn(N, 1, generator=generator).exp()
    factor = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.5, 0.0], [-1.0, 0.3, 4.0]])
    known = CurvedMap.affine(torch.tensor([1.0, 2.0, 3.0]), factor)
    points, weight = known.forward(torch.cat([z, wrong]))[0], torch.cat([torch.ones(N), torch.zeros(N)])
    assert fit_part(points, weight, known).degrees in expected
