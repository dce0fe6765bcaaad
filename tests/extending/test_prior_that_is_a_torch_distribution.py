"""A prior that is an object of torch.distributions."""

from functools import partial

import torch
from torch.distributions import Laplace

from diffsampler import Sampler, fit
from diffsampler.losses import TrajectoryBalance
from diffsampler.networks import FourierMLP
from diffsampler.priors import Prior
from diffsampler.processes import Bridge
from targets import Gaussian


class DistributionPrior(Prior):
    """All coordinates alike, from a distribution that knows its quantiles."""

    def __init__(self, space, distribution):
        super().__init__(space)
        self.distribution = distribution

    def draw(self, like, generator):
        uniform = torch.rand(like.shape, generator=generator, dtype=torch.float64, device=like.device)
        return self.distribution.icdf(uniform).to(like)

    def log_prob(self, x):
        return self.distribution.log_prob(x).sum(-1)

    def score(self, x):
        return -(x - self.distribution.loc).sign() / self.distribution.scale


def test_log_z_from_a_laplace_prior():
    prior = partial(DistributionPrior, distribution=Laplace(0.0, 1.0))
    sampler = Sampler(Gaussian([0.4, -0.2]), partial(Bridge, prior=prior), FourierMLP, flow=None, grid=10)
    fit(sampler, max_steps=20, loss=TrajectoryBalance(), enable_progress_bar=False, accelerator="cpu")
    weight = (sampler.sample(20_000, seed=1, return_log_weights=True)[1] - sampler.target.log_z).exp()
    # E[w] = Z: within 4.5 standard errors, a false alarm of 7e-6.
    assert abs(weight.mean() - 1) < 4.5 * weight.std() / 20_000**0.5 and weight.std() < 4
