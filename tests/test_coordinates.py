"""Affine coordinates: the same density and normalising constant, seen from elsewhere."""

import math
from functools import partial

import pytest
import torch
from helpers import ZeroControl, assert_mean, correlated_gaussian, randomise

from diffsampler import FunctionTarget, Sampler
from diffsampler.coordinates import AffineCoordinates, Coordinates, LaplaceCoordinates
from diffsampler.errors import InputError
from diffsampler.frames import DensityInCoordinates
from targets import Gaussian

LOC, MATRIX = torch.tensor([3.0, -1.0]).double(), torch.tensor([[2.0, 0.0], [0.7, 0.5]]).double()


def test_inverse_undoes_forward(generator: torch.Generator) -> None:
    coordinates = AffineCoordinates(LOC, MATRIX)
    z = torch.randn(4, 5, 2, generator=generator)
    x, _ = coordinates(z)
    torch.testing.assert_close(x[1, 2], LOC + MATRIX @ z[1, 2])
    torch.testing.assert_close(coordinates.inverse(x), z)
    assert math.isclose(float(coordinates.log_det), math.log(2.0 * 0.5))


def test_density_is_that_of_the_transformed_variable(generator: torch.Generator) -> None:
    # x ~ N(m, C) gives z = A^-1 (x - loc) ~ N(A^-1 (m - loc), A^-1 C A^-T), a density SciPy knows.
    stats = pytest.importorskip("scipy.stats")
    target = correlated_gaussian(log_z=0.8)
    density = DensityInCoordinates(target, AffineCoordinates(LOC, MATRIX))
    inverse = MATRIX.inverse()
    mean = inverse @ (target.gaussian.mean - LOC)
    covariance = inverse @ torch.tensor([[0.9, 0.3], [0.3, 0.6]]) @ inverse.T
    z = mean + torch.randn(50, 2, generator=generator)
    expected = torch.from_numpy(stats.multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(z.numpy())) + 0.8
    torch.testing.assert_close(density.log_prob(z), expected)
    log_prob, score = density.log_prob_and_score(z)
    torch.testing.assert_close(log_prob, expected)
    by_autograd = torch.autograd.functional.jacobian(lambda z: density.log_prob(z).sum(), z)
    torch.testing.assert_close(score, by_autograd)


def test_weights_are_unbiased_and_samples_are_in_the_targets_coordinates() -> None:
    target = correlated_gaussian(log_z=0.8)
    # A wider reference than the target keeps the variance of the weights finite.
    coordinates = AffineCoordinates(target.gaussian.mean, 1.2 * torch.eye(2))
    sampler = Sampler(target, grid=5, coordinates=coordinates)
    randomise(sampler, 0.03)
    x, log_weight = sampler.sample(20_000, seed=3, return_log_weights=True)
    # The z-tests' chance of a false alarm is 7e-6 each, 2e-5 together.
    weight = (log_weight - 0.8).exp()
    assert_mean(weight, 1.0, "E[w] / Z")
    for d in range(2):
        assert_mean(weight * (x[:, d] - target.gaussian.mean[d]), 0.0, f"weighted mean of x{d}")
    path = sampler.rollback(x[:7], torch.Generator().manual_seed(1))
    torch.testing.assert_close(coordinates(path.x[-1])[0], x[:7])


def test_every_weight_is_z_in_the_laplace_coordinates_of_a_gaussian() -> None:
    covariance = [[4.0, 1.5], [1.5, 1.0]]
    target = FunctionTarget(Gaussian(mean=[30.0, -20.0], covariance=covariance).log_prob, dim=2)
    coordinates = LaplaceCoordinates(target)
    torch.testing.assert_close(coordinates.loc, torch.tensor([30.0, -20.0]))
    torch.testing.assert_close(coordinates.matrix @ coordinates.matrix.T, torch.tensor(covariance))
    # Without control the process ends in N(0, I), which in these coordinates is the target.
    sampler = Sampler(target, control=ZeroControl(), flow=None, grid=4, coordinates=LaplaceCoordinates)
    assert sampler.num_target_evaluations == coordinates.num_target_evaluations > 2
    _, log_weight = sampler.sample(5, seed=0, return_log_weights=True)
    torch.testing.assert_close(log_weight, torch.zeros(5), atol=1e-8, rtol=0)
    wide = LaplaceCoordinates(target, scale=3.0)
    torch.testing.assert_close(wide.matrix, 3 * coordinates.matrix)


def test_search_counts_its_evaluations() -> None:
    calls = []

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape[:-1].numel())
        return -((x - 1) ** 4).sum(-1) - (x**2).sum(-1)

    sampler = Sampler(FunctionTarget(log_prob, dim=3), grid=2, coordinates=LaplaceCoordinates)
    # The Hessian is one evaluation with D more backward passes; each is counted as an evaluation.
    assert sampler.num_target_evaluations == len(calls) - 1 + 3


@pytest.mark.parametrize(
    ("loc", "matrix"),
    [
        (torch.zeros(2), torch.zeros(2, 2)),
        (torch.zeros(2), torch.eye(3)),
        (torch.zeros(2), torch.ones(3, 2)),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 4.0]])),
    ],
)
def test_refuses_maps_that_cannot_be_undone(loc: torch.Tensor, matrix: torch.Tensor) -> None:
    with pytest.raises(InputError, match="matrix must be invertible|must have shapes"):
        AffineCoordinates(loc, matrix)


def test_refuses_other_bad_input() -> None:
    with pytest.raises(InputError, match="dimension 2, got 3"):
        Sampler(correlated_gaussian(), coordinates=AffineCoordinates(torch.zeros(3), torch.eye(3)))
    with pytest.raises(InputError, match="scale"):
        LaplaceCoordinates(correlated_gaussian(), scale=0.0)
    for name, log_prob in [
        ("a saddle", lambda x: x[..., 0] ** 2 - x[..., 1] ** 2),
        ("a plane", lambda x: x.sum(-1)),
        ("not a number", lambda x: x.sum(-1) * math.nan),
    ]:
        with pytest.raises(InputError, match="no strict maximum"):
            LaplaceCoordinates(FunctionTarget(log_prob, dim=2))
            pytest.fail(name)


class Doubled(Coordinates):
    """x = 2 z, with one mistake of three."""

    def __init__(self, target: FunctionTarget, mistake: str) -> None:
        super().__init__(target.dim)
        self.mistake = mistake

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_det = torch.full(z.shape[:-1], 0.0 if self.mistake == "log_det" else 2 * math.log(2.0))
        return 2 * z, log_det[:1] if self.mistake == "shape" else log_det

    def inverse(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.mistake == "inverse" else x / 2


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("log_det", r"Doubled.forward must return log \|det dx/dz\|, 1.386 at z = .* by autograd, got 0"),
        ("inverse", "Doubled.inverse must undo forward"),
        ("shape", r"with shapes \(\*, 2\) and \(\*\), for z of shape \(\*, 2\), got \(3, 2\) and \(1,\)"),
    ],
)
def test_mistakes_in_coordinates_of_ones_own_are_named(mistake: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampler(correlated_gaussian(), coordinates=partial(Doubled, mistake=mistake), grid=3)
    assert Sampler(correlated_gaussian(), coordinates=partial(Doubled, mistake="none"), grid=3).sample(2).shape == (
        2,
        2,
    )
