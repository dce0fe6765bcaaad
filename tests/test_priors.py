"""One battery for all priors, over the list in helpers.py."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import PRIORS, assert_mean, by_name, randomise, two_modes

from diffsampler import InputError, Sampler
from diffsampler.networks import FourierMLP
from diffsampler.priors import GaussianMixturePrior, GaussianPrior, Prior
from diffsampler.processes import VariancePreserving

every_prior = pytest.mark.parametrize("case", PRIORS, ids=by_name)


def make(case: tuple[str, Callable[..., Prior]], dim: int = 2) -> Prior:
    prior = case[1](dim)
    randomise(prior)
    return prior


@every_prior
def test_integrates_to_one(case: tuple[str, Callable[..., Prior]]) -> None:
    # The trapezoidal rule is exact to rounding for Gaussians with steps below half a standard deviation.
    line = torch.arange(-16, 16, 0.2)
    with torch.no_grad():
        total = make(case).log_prob(torch.cartesian_prod(line, line)).exp().sum() * 0.2**2
    assert abs(total - 1) < 1e-8, f"{case[0]} integrates to {total}"


@every_prior
def test_score_is_the_gradient(case: tuple[str, Callable[..., Prior]], generator: torch.Generator) -> None:
    prior, x = make(case), torch.randn(3, 5, 2, generator=generator).requires_grad_()
    log_prob = prior.log_prob(x)
    assert log_prob.shape == (3, 5)
    (expected,) = torch.autograd.grad(log_prob.sum(), x)
    torch.testing.assert_close(prior.score(x.detach()), expected, msg=case[0])


@every_prior
def test_samples_match_the_density(case: tuple[str, Callable[..., Prior]], generator: torch.Generator) -> None:
    # E[q / p] = 1 under p for any other normalised q: a narrower prior serves. n = 20000, |z| < 4.5, 7e-6.
    prior = make(case)
    other = GaussianPrior(2, 0.4, 0.5)
    with torch.no_grad():
        x = prior.sample(20_000, generator, torch.float64, None)
        ratio = (other.log_prob(x) - prior.log_prob(x)).exp()
    assert_mean(ratio, 1.0, case[0])
    assert len(x.unique(dim=0)) == 20_000


@every_prior
def test_samples_carry_gradients_if_they_say_so(
    case: tuple[str, Callable[..., Prior]], generator: torch.Generator
) -> None:
    prior = make(case)
    x = prior.sample(50, generator, None, None)
    for name, parameter in prior.named_parameters():
        (gradient,) = torch.autograd.grad(x.sum(), parameter, retain_graph=True, allow_unused=True)
        reached = gradient is not None and bool(gradient.any())
        assert reached or not prior.reparametrised, f"{case[0]}: {name}"
    assert not any(p.requires_grad for p in _frozen(case).parameters())


def _frozen(case: tuple[str, Callable[..., Prior]]) -> Prior:
    return case[1](2, learnable=False)


def test_refuses_bad_arguments() -> None:
    for name in ("scale", "spread", "num_components", "seed"):
        with pytest.raises(InputError, match=name):
            GaussianMixturePrior(2, **{name: -1})
    for loc in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="loc"):
            GaussianPrior(2, loc=loc)
    prior = GaussianPrior(2, loc=1)
    assert prior.loc.dtype.is_floating_point
    with pytest.raises(InputError, match="scale"):
        GaussianPrior(2, scale=0.0)


class OneNumber(GaussianPrior):
    """A density that is one number in memory, whatever the states."""

    def log_prob(self, x):
        return self.value.expand(x.shape[:-1])


def test_what_a_prior_returns_is_its_own() -> None:
    prior = OneNumber(2)
    prior.value = torch.zeros((), dtype=torch.float64)
    sampler = Sampler(two_modes(), partial(VariancePreserving, prior=prior), FourierMLP, flow=None, grid=3)
    first, again = (sampler.sample(5, seed=0, return_log_weights=True)[1] for _ in range(2))
    assert torch.equal(first, again) and float(prior.value) == 0.0
