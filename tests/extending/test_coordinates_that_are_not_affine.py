"""Coordinates whose log-determinant differs from point to point."""

import math

import pytest
import torch

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.coordinates import Coordinates


class Sinh(Coordinates):
    """x = scale sinh(z): long tails come within reach."""

    def __init__(self, target, scale=0.5):
        super().__init__(target.dim)
        self.scale = scale

    def forward(self, z):
        return self.scale * z.sinh(), (self.scale * z.cosh()).log().double().sum(-1)

    def inverse(self, x):
        return (x / self.scale).asinh()


@pytest.mark.slow
def test_log_z_of_heavy_tails():
    target = FunctionTarget(lambda x: -2 * (1 + x.square()).log().sum(-1), dim=2)  # Student t, 3 degrees of freedom
    sampler = Sampler(target, coordinates=Sinh, grid=20)
    fit(sampler, max_steps=20, enable_progress_bar=False, accelerator="cpu")
    x, log_weight = sampler.sample(10_000, seed=1, return_log_weights=True)
    weight = log_weight.exp() / (math.pi / 2) ** 2
    # E[w] = Z: within 4.5 standard errors, a false alarm of 7e-6.
    assert abs(weight.mean() - 1) < 4.5 * weight.std() / 100 and weight.std() < 2
    path = sampler.rollback(x[:9])  # from x to z
    torch.testing.assert_close(sampler.coordinates(path.x[-1])[0], x[:9], rtol=1e-4, atol=1e-5)
    assert sampler.log_prob(x[:9]).isfinite().all()
