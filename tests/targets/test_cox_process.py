"""The log-Gaussian Cox process: its data, its closed forms, and a small grid by quadrature."""

import math

import pytest
import torch

from diffsampler.baseline import reference
from diffsampler.coordinates import LaplaceCoordinates
from diffsampler.log_z import estimate_log_z
from examples.cox_process import main
from targets import CoxProcess


def test_trees_and_field(generator: torch.Generator) -> None:
    target = CoxProcess()
    assert target.dim == 1600 and target.counts.sum() == 126 and target.counts.max() == 3
    assert target.log_z == 501.75 and CoxProcess(8).log_z is None
    # Cells that touch are correlated by exp(-33 / 40), a covariance of 1.91 on the diagonal.
    covariance = torch.linalg.inv(target.precision)
    assert abs(float(covariance[0, 0]) - 1.91) < 1e-9
    assert abs(float(covariance[0, 1]) - 1.91 * math.exp(-33 / 40)) < 1e-9
    assert abs(float(covariance[0, 41]) - 1.91 * math.exp(-33 / 40 * math.sqrt(2))) < 1e-9


def test_density_by_hand(generator: torch.Generator) -> None:
    target = CoxProcess(3)
    x = target.mean + torch.randn(4, 9, generator=generator).double()
    field = torch.distributions.MultivariateNormal(
        torch.full((9,), target.mean).double(), torch.inverse(target.precision)
    )
    expected = field.log_prob(x) + (target.counts * x - x.exp() / 9).sum(-1)
    torch.testing.assert_close(target.log_prob(x), expected)


def test_score_in_closed_form(generator: torch.Generator) -> None:
    target = CoxProcess(5)
    x = (target.mean + torch.randn(6, 25, generator=generator).double()).requires_grad_()
    (by_autograd,) = torch.autograd.grad(target.log_prob(x).sum(), x)
    log_prob, score = target.log_prob_and_score(x)
    torch.testing.assert_close(score, by_autograd)
    torch.testing.assert_close(log_prob, target.log_prob(x))


@pytest.mark.slow
def test_reference_finds_log_z_of_a_small_grid(generator: torch.Generator) -> None:
    # Four cells: 100 000 importance weights from a Laplace approximation, widened, against SMC; both know their error.
    target = CoxProcess(2)
    coordinates = LaplaceCoordinates(target, scale=1.1)
    z = torch.randn(100_000, 4, generator=generator).double()
    log_normal = -0.5 * z.square().sum(-1) - 2 * math.log(2 * math.pi)
    plain = estimate_log_z(target.log_prob(coordinates(z)[0]) + coordinates.log_det - log_normal)
    estimate = reference(target, seed=0).estimate
    error = math.hypot(estimate.high - estimate.low, plain.high - plain.low) / (2 * 1.96)
    assert error < 0.1 and abs(estimate.log_z - plain.log_z) < 4.5 * error


def test_example_prints_an_estimate_and_its_verdict(capsys: pytest.CaptureFixture) -> None:
    main(size=4, num_particles=200, num_moves=2)
    printed = capsys.readouterr().out
    assert "log Z" in printed and "\n  reference " in printed and "verdict: trustworthy" in printed
