"""Triangular maps and heavy tails: exact inverses, exact determinants, and the densities that they are made for."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from helpers import Z_BOUND
from torch import Tensor

from diffsampler.baseline.curved import CurvedMap, fit_map, with_tail
from diffsampler.baseline.tails import Tail

LOG_2PI = math.log(2 * math.pi)
N = 2000


def log_normal(x: Tensor, mean: Tensor | float, log_std: Tensor | float) -> Tensor:
    log_std = torch.as_tensor(log_std)
    return -0.5 * ((x - mean) / log_std.exp()).square() - log_std - 0.5 * LOG_2PI


def funnel(z: Tensor) -> Tensor:
    """Neal's: v ~ N(0, 3^2), nine coordinates N(0, exp(v)), and not in the order of dependence."""
    v = 3 * z[:, :1]
    return torch.cat([z[:, 1:5] * (0.5 * v).exp(), v, z[:, 5:] * (0.5 * v).exp()], -1)


def log_funnel(x: Tensor) -> Tensor:
    v = x[:, 4:5]
    rest = log_normal(torch.cat([x[:, :4], x[:, 5:]], -1), 0.0, 0.5 * v)
    return log_normal(v, 0.0, math.log(3.0)).squeeze(-1) + rest.sum(-1)


def banana(z: Tensor) -> Tensor:
    """Two turned axes: a parabola that neither coordinate shows."""
    y = torch.stack([10 * z[:, 0], z[:, 1] + 0.03 * (10 * z[:, 0]).square() - 3], -1)
    return torch.stack([y[:, 0] + y[:, 1], y[:, 1] - y[:, 0]], -1) / math.sqrt(2)


def log_banana(x: Tensor) -> Tensor:
    y = torch.stack([x[:, 0] - x[:, 1], x[:, 0] + x[:, 1]], -1) / math.sqrt(2)
    return log_normal(y[:, 0], 0.0, math.log(10.0)) + log_normal(y[:, 1], 0.03 * y[:, 0].square() - 3, 0.0)


def chain(z: Tensor) -> Tensor:
    """x0 ~ N(1, 10), then its square, and the square of that, to 0.3: one branch of the hybrid Rosenbrock."""
    x = 1 + math.sqrt(10) * z[:, 0]
    y = x.square() + math.sqrt(0.1) * z[:, 1]
    return torch.stack([x, y, y.square() + math.sqrt(0.1) * z[:, 2]], -1)


def log_chain(x: Tensor) -> Tensor:
    x, y, last = x.unbind(-1)
    narrow = 0.5 * math.log(0.1)
    found = log_normal(x, 1.0, 0.5 * math.log(10.0)) + log_normal(y, x.square(), narrow)
    return found + log_normal(last, y.square(), narrow)


BENT = [(funnel, log_funnel, 10), (banana, log_banana, 2), (chain, log_chain, 3)]


def bent_map(tail: Tail | None = None) -> CurvedMap:
    """Of a funnel in oblique axes, in an order of its own, with a tail if it is given."""
    generator = torch.Generator().manual_seed(5)
    found = fit_map(funnel(torch.randn(N, 10, generator=generator))[:, 3:7])
    oblique = torch.eye(4) + 0.3 * torch.randn(4, 4, generator=generator)
    assert found.is_bent and found.order != (0, 1, 2, 3)
    return CurvedMap(found.loc + 2.0, found.basis @ oblique, found.order, found.fits, tail)


MAPS = {
    "bent": bent_map,
    "radial": lambda: bent_map(Tail(3.0, 1.2, radial=True)),
    "product": lambda: bent_map(Tail(5.0, 0.7, radial=False)),
    "affine": lambda: CurvedMap.affine(torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.3], [-0.1, 0.5]])),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_and_its_inverse(name: str, generator: torch.Generator) -> None:
    found = MAPS[name]()
    z = torch.randn(200, len(found.loc), generator=generator) * 1.5
    x, log_det = found.forward(z)
    again, log_det_again = found.inverse(x)
    torch.testing.assert_close(again, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det_again, log_det, rtol=1e-9, atol=1e-9)
    jacobian = torch.autograd.functional.jacobian(lambda z: found.forward(z)[0].sum(0), z[:20]).transpose(0, 1)
    torch.testing.assert_close(log_det[:20], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-9, atol=1e-9)
    assert found.is_bent == (name != "affine")


@pytest.mark.parametrize("name", MAPS)
def test_a_map_survives_a_checkpoint(name: str, generator: torch.Generator, tmp_path: Path) -> None:
    found = MAPS[name]()
    torch.save(asdict(found), tmp_path / "map")
    again = CurvedMap.from_dict(**torch.load(tmp_path / "map", weights_only=True))
    z = torch.randn(50, len(found.loc), generator=generator)
    for mine, theirs in zip(found.forward(z), again.forward(z), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("draw", "log_prob", "dim"), BENT, ids=["funnel", "banana", "chain"])
def test_what_a_map_can_be_is_recovered(draw: object, log_prob: object, dim: int, generator: torch.Generator) -> None:
    x = draw(torch.randn(N, dim, generator=generator))
    found = fit_map(x)
    # Weights of fresh draws of the map, and of fresh draws of the target: each counts what the other cannot see.
    z = torch.randn(10_000, dim, generator=generator)
    drawn, log_det = found.forward(z)
    log_weight = log_prob(drawn) - (log_normal(z, 0.0, 0.0).sum(-1) - log_det)
    forward = float((2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()) / 10_000
    own = draw(torch.randn(10_000, dim, generator=generator))
    z, log_det = found.inverse(own)
    log_ratio = log_prob(own) - (log_normal(z, 0.0, 0.0).sum(-1) - log_det)
    backward = 10_000 / float(log_ratio.exp().sum())
    # p parameters known from n points cost an effective sample size of p / n: below 70 / 2000 here.
    assert forward > 0.5 and backward > 0.5, (forward, backward)
    # The weights have the mean 1: both densities are normalised.
    weight = log_weight.exp()
    assert abs(float(weight.mean()) - 1) < Z_BOUND * float(weight.std()) / 100, "the mean of 10 000 weights, 7e-6"


def test_a_gaussian_is_left_straight(generator: torch.Generator) -> None:
    factor = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-3.0, 0.2, 0.1]])
    found = fit_map(torch.randn(N, 3, generator=generator) @ factor.T + 100.0)
    assert not found.is_bent
    z, _ = found.inverse(torch.randn(20_000, 3, generator=generator) @ factor.T + 100.0)
    # A variance known from 2000 points to sqrt(2 / 2000) = 0.03, five of them; a mean to 0.022.
    assert z.mean(0).abs().max() < 0.15 and (torch.cov(z.T) - torch.eye(3)).abs().max() < 0.2
    assert with_tail(found, found.forward(torch.randn(N, 3, generator=generator))[0]).tail is None


def test_weighted_points_count_by_weight(generator: torch.Generator) -> None:
    # Draws of N(0, 2^2), weighted down to N(0, 1): the unweighted fit would be twice as wide.
    x = 2 * torch.randn(4000, 1, generator=generator)
    weight = (-0.5 * x.square() * (1 - 0.25)).exp().squeeze(-1)
    found = fit_map(x, weight)
    width = float(found.forward(torch.ones(1, 1))[0] - found.forward(torch.zeros(1, 1))[0])
    # The effective number of points is above 2000: a relative error of 0.016, six of them.
    assert abs(abs(width) - 1) < 0.1


def test_a_coordinate_that_does_not_move(generator: torch.Generator) -> None:
    x = torch.cat([torch.randn(N, 1, generator=generator), torch.full((N, 1), 3.0)], -1)
    z, log_det = fit_map(x).inverse(x)
    assert z.isfinite().all() and log_det.isfinite().all()


def test_far_from_the_origin_no_digits_are_lost(generator: torch.Generator) -> None:
    far, width = torch.tensor([1e9, -3.0]), torch.tensor([1e-3, 1e5])
    x = far + width * torch.randn(N, 2, generator=generator)
    found = fit_map(x)
    # A width known from 2000 points to 0.016, six of them; points at 1e9 are 1e-7 apart, which is nothing of 1e-3.
    assert (found.basis.norm(dim=-1) / width - 1).abs().max() < 0.1
    images = found.forward(found.inverse(x)[0])[0]
    assert ((images - x) / width).abs().max() < 1e-3
    # A column of the basis of 1e-3 to ten digits: the covariance of the points is that of the map.
    expected = torch.cov(x.T, correction=0)
    torch.testing.assert_close((found.basis @ found.basis.T).diagonal(), expected.diagonal(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("radial", [True, False])
@pytest.mark.parametrize("degrees", [1.0, 3.0, 30.0])
def test_tails(degrees: float, radial: bool, generator: torch.Generator) -> None:
    tail = Tail(degrees, 1.7, radial)
    # From where the series takes over to where the image is a million.
    z = torch.randn(100, 3, generator=generator) * torch.logspace(-6, 0.3, 100).unsqueeze(-1)
    z[0] = 0.0
    y, log_det = tail.forward(z)
    again, log_det_again = tail.inverse(y)
    torch.testing.assert_close(again, z, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(log_det_again, log_det, rtol=1e-8, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda z: tail.forward(z)[0].sum(0), z[1:]).transpose(0, 1)
    torch.testing.assert_close(log_det[1:], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-6, atol=1e-6)


def test_a_tail_falls_as_a_power_of_its_degrees() -> None:
    # Density of the image of N(0, 1) in one dimension: its logarithm falls by (a + 1) log 2 when y doubles, far out.
    for degrees in (1.0, 3.0, 8.0):
        y = torch.tensor([[1e8], [2e8]])
        z, log_det = Tail(degrees, 1.0, True).inverse(y)
        log_density = log_normal(z, 0.0, 0.0).squeeze(-1) - log_det
        fall = float(log_density[0] - log_density[1]) / math.log(2)
        # A slowly varying factor, a root of log y, is left: 1 / (2 log(y^2 / a)) below.
        assert abs(fall - (degrees + 1)) < 0.05, (degrees, fall)


@pytest.mark.parametrize("radial", [True, False])
def test_points_ask_for_their_tail(radial: bool, generator: torch.Generator) -> None:
    dim = 3
    law = torch.distributions.StudentT(torch.tensor(3.0))
    z = torch.randn(4000, dim, generator=generator)
    gamma = torch._standard_gamma(torch.full((4000, 1 if radial else dim), 1.5), generator=generator) / 1.5
    y = z / gamma.sqrt()  # Student's, with 3 degrees: multivariate, or a product
    found = with_tail(CurvedMap.affine(torch.zeros(dim), torch.eye(dim)), y).tail
    assert found is not None and found.radial == radial and 2 <= found.degrees <= 5, found
    if not radial:
        # The weights of fresh draws: without a tail that fits they would have no variance.
        x, log_det = found.forward(torch.randn(10_000, dim, generator=generator))
        z, _ = found.inverse(x)
        weight = (law.log_prob(x).sum(-1) - log_normal(z, 0.0, 0.0).sum(-1) + log_det).exp()
        assert float(weight.sum().square() / weight.square().sum()) / 10_000 > 0.8
