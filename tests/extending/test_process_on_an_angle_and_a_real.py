"""A process on a product of an angle and a real, from a uniform angle and a normal real."""

import math

import torch

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.losses import TrajectoryBalance
from diffsampler.networks import FourierMLP
from diffsampler.priors import GaussianPrior, ProductPrior, UniformPrior
from diffsampler.processes import Process
from diffsampler.spaces import Circle


class Cylinder(Process):
    """Brownian motion of both, controlled; backwards the angle wanders, and the real goes back to N(0, 1)."""

    def __init__(self, space, sigma=2.0):
        prior = ProductPrior([UniformPrior(Circle(1)), GaussianPrior(1)])
        super().__init__(prior.space, prior)
        self.sigma = sigma

    def forward_kernel(self, s, t, x, u, score=None):
        return self.space.kernel(x + u * (self.sigma * (t - s)).to(x.dtype), self.sigma * (t - s).sqrt())

    def backward_kernel(self, s, t, y, v=None, score=None):
        kept = (1 + self.sigma**2 * s) / (1 + self.sigma**2 * t)
        ratio = torch.where(torch.tensor([False, True]), kept, 1.0)
        return self.space.kernel(y * ratio.to(y.dtype), self.sigma * ((t - s) * ratio).sqrt())

    def log_reference(self, t, x):
        return self.prior.log_prob(x)


def test_log_z_of_an_angle_and_a_real_that_hang_together():
    target = FunctionTarget(lambda x: 2 * x[..., 0].cos() - 0.5 * (x[..., 1] - x[..., 0].sin()) ** 2, dim=2)
    sampler = Sampler(target, Cylinder, FourierMLP, flow=None, grid=16)
    fit(sampler, max_steps=20, loss=TrajectoryBalance(), lr=1e-2, enable_progress_bar=False, accelerator="cpu")
    x, log_weight = sampler.sample(20_000, seed=1, return_log_weights=True)
    weight = log_weight.exp() / ((2 * math.pi) ** 1.5 * torch.special.i0(torch.tensor(2.0)))
    # E[w] = Z whatever the control: within 4.5 standard errors, a false alarm of 7e-6.
    assert abs(weight.mean() - 1) < 4.5 * weight.std() / 20_000**0.5 and weight.std() < 3
    assert x[:, 0].abs().max() <= math.pi < x[:, 1].abs().max()
