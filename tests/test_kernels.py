"""One battery for all kernels: a new one is an entry of `KERNELS`."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from helpers import Z_BOUND, by_name
from scipy import stats
from torch import Tensor

from diffsampler.spaces.kernels import GaussianKernel, Kernel


class KernelCase(NamedTuple):
    name: str
    make: Callable[[Tensor], Kernel]  # from a mean with shape (*, D), D = 1 or 2
    std: tuple[float, float]  # of each coordinate


MEAN = torch.tensor([0.7, -1.1], dtype=torch.float64)
KERNELS = [
    KernelCase("GaussianKernel", lambda mean: GaussianKernel(mean, torch.tensor(0.6)), (0.6, 0.6)),
    KernelCase(
        "GaussianKernel-vector",
        lambda mean: GaussianKernel(mean, torch.tensor([0.4, 1.3])[: mean.shape[-1]]),
        (0.4, 1.3),
    ),
    KernelCase("GaussianKernel-steps", lambda mean: GaussianKernel(mean, torch.full((1, 1), 0.6)), (0.6, 0.6)),
]
DIRACS = [
    ("scalar", torch.tensor(0.0, dtype=torch.float64)),
    ("vector", torch.zeros(2, dtype=torch.float64)),
    ("steps", torch.zeros(3, 1, 1, dtype=torch.float64)),
]


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("case", KERNELS, ids=by_name)
def test_integrates_to_one(case: KernelCase, dim: int) -> None:
    # The trapezoidal rule on +-10 standard deviations is exact to rounding for a Gaussian at this step.
    lines = [MEAN[i] + case.std[i] * torch.arange(-10, 10, 0.25) for i in range(dim)]
    volume = math.prod(0.25 * case.std[i] for i in range(dim))
    points = torch.cartesian_prod(*lines).reshape(-1, dim)
    total = case.make(MEAN[:dim].expand(len(points), dim)).log_prob(points).exp().sum() * volume
    assert abs(total - 1) < 1e-10, f"{case.name} in {dim} dimensions integrates to {total}"


@pytest.mark.parametrize("noise_scale", [1.0, 1.7])
@pytest.mark.parametrize("case", KERNELS, ids=by_name)
def test_samples_match_the_density(case: KernelCase, noise_scale: float, generator: torch.Generator) -> None:
    # n = 4000 draws; Kolmogorov-Smirnov p-values above 1e-5, a false alarm of 2e-5 for the two coordinates.
    x = case.make(MEAN.expand(4000, 2)).rsample(generator, noise_scale)
    for i in range(2):
        # The noise scale widens the noise and leaves the mean.
        p = stats.kstest(x[:, i].numpy(), stats.norm(MEAN[i], noise_scale * case.std[i]).cdf).pvalue
        assert p > 1e-5, f"{case.name}: coordinate {i} has p = {p}"
    # Independent coordinates: the correlation of n draws has standard error n^-1/2.
    assert abs(torch.corrcoef(x.T)[0, 1]) < Z_BOUND / math.sqrt(4000), case.name


@pytest.mark.parametrize("case", KERNELS, ids=by_name)
def test_density_matches_scipy(case: KernelCase, generator: torch.Generator) -> None:
    x = torch.randn(5, 3, 2, generator=generator)
    expected = sum(stats.norm(MEAN[i], case.std[i]).logpdf(x[..., i]) for i in range(2))
    torch.testing.assert_close(case.make(MEAN.expand(5, 3, 2)).log_prob(x), torch.as_tensor(expected), msg=case.name)


@pytest.mark.parametrize("case", KERNELS, ids=by_name)
def test_rsample_is_reproducible_and_differentiable(case: KernelCase) -> None:
    mean = MEAN.expand(3, 2).clone().requires_grad_()
    first, second = (case.make(mean).rsample(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second), case.name
    (gradient,) = torch.autograd.grad(first.sum(), mean)
    assert torch.equal(gradient, torch.ones_like(mean)), case.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_its_dtype(dtype: torch.dtype) -> None:
    for shape in ((), (2,), (3, 1, 1)):
        kernel = GaussianKernel(torch.zeros(3, 4, 2, dtype=dtype), torch.full(shape, 0.5, dtype=dtype))
        x = kernel.rsample()
        assert x.dtype == dtype and kernel.log_prob(x).dtype == dtype, shape


@pytest.mark.parametrize("case", DIRACS, ids=by_name)
def test_dirac_counts_as_log_density_zero(case: tuple[str, Tensor], generator: torch.Generator) -> None:
    mean = torch.randn(3, 4, 2, generator=generator).requires_grad_()
    kernel = GaussianKernel(mean, case[1])
    x = kernel.rsample(generator)
    assert torch.equal(x, mean), case[0]
    log_prob = kernel.log_prob(x)
    assert torch.equal(log_prob, torch.zeros(3, 4)), case[0]
    (gradient,) = torch.autograd.grad(log_prob.sum(), mean)
    assert torch.equal(gradient, torch.zeros_like(mean)), case[0]


def test_dirac_in_one_step_leaves_the_others(generator: torch.Generator) -> None:
    mean, x = torch.randn(2, 3, 4, 2, generator=generator)
    std = torch.tensor([0.0, 0.5, 2.0]).reshape(3, 1, 1)
    log_prob = GaussianKernel(mean, std).log_prob(x)
    assert torch.equal(log_prob[0], torch.zeros(4))
    for k in (1, 2):
        torch.testing.assert_close(log_prob[k], GaussianKernel(mean[k], std[k, 0, 0]).log_prob(x[k]))


def test_dirac_in_one_coordinate_leaves_the_others() -> None:
    x = torch.tensor([[0.3, 9.0]])
    log_prob = GaussianKernel(torch.zeros(1, 2), torch.tensor([0.5, 0.0])).log_prob(x)
    torch.testing.assert_close(log_prob, GaussianKernel(torch.zeros(1, 1), torch.tensor(0.5)).log_prob(x[:, :1]))
