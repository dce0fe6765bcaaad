"""A sampler of a family: a context of one number travels beside the state, and log Z is that of the number."""

import math
from copy import deepcopy
from functools import partial

import pytest
import torch

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.losses import PathwiseReverseKL
from diffsampler.networks import FourierMLP
from diffsampler.priors import DiracPrior, GaussianPrior, ProductPrior
from diffsampler.processes import PinnedBrownian, Process
from diffsampler.spaces.kernels import GaussianKernel, ProductKernel


class WithContext(Process):
    """Brownian motion of x in R^D; the last coordinate, drawn from N(c, width^2), stays."""

    def __init__(self, space, c=0.0, width=1.0):
        context = GaussianPrior(1, c, width, learnable=False)
        super().__init__(space, ProductPrior([DiracPrior(space.dim - 1), context]))
        self.moving = PinnedBrownian(space.dim - 1, 2.0)

    def _beside(self, kernel, x):
        return ProductKernel([kernel, GaussianKernel(x[..., -1:], torch.zeros((), dtype=torch.float64))])

    def forward_kernel(self, s, t, x, u, score=None):
        return self._beside(self.moving.forward_kernel(s, t, x[..., :-1], u[..., :-1]), x)

    def backward_kernel(self, s, t, y, v=None, score=None):
        return self._beside(self.moving.backward_kernel(s, t, y[..., :-1]), y)

    def log_reference(self, t, x):
        return self.moving.log_reference(t, x[..., :-1])


def member(control, c, width):
    """N(m = c, 1) / 2 of x beside the context, whose own density cancels: log Z = log sqrt(2 pi) + c."""
    context = GaussianPrior(1, c, width, learnable=False)
    target = FunctionTarget(
        lambda x: x[..., 1] - 0.5 * (x[..., 0] - x[..., 1]) ** 2 + context.log_prob(x[..., 1:]), dim=2
    )
    return Sampler(target, partial(WithContext, c=c, width=width), control, flow=None, grid=20)


@pytest.mark.slow
def test_log_z_of_a_number():
    family = member(FourierMLP, 0.0, 1.0)
    fit(
        family,
        max_steps=150,
        loss=PathwiseReverseKL(),
        lr=5e-3,
        batch_size=128,
        enable_progress_bar=False,
        accelerator="cpu",
    )
    for c in (-0.8, 0.3, 1.0):
        one = member(deepcopy(family.policy.control), c, 1e-6)
        estimate = one.estimate_log_z(5000, seed=1)
        assert abs(estimate.log_z - 0.5 * math.log(2 * math.pi) - c) < 0.1 and estimate.ess > 0.5, (c, estimate)
