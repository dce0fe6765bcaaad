"""Four particles whose energy does not know where their centre is, and a control that does not know their names."""

import math

import pytest
import torch

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.coordinates import Coordinates
from diffsampler.networks import Control

N, D = 4, 2
HELMERT = torch.linalg.qr(torch.cat([torch.ones(N, 1), torch.eye(N)[:, 1:]], 1).double()).Q[:, 1:]  # columns sum to 0


class MeanFree(Coordinates):
    """x = H z, for orthonormal columns H that sum to zero: isotropic noise stays isotropic."""

    def __init__(self, target):
        super().__init__((N - 1) * D, N * D)

    def forward(self, z):
        x = HELMERT.to(z.dtype) @ z.unflatten(-1, (N - 1, D))
        return x.flatten(-2), torch.zeros(z.shape[:-1], dtype=torch.float64)

    def inverse(self, x):
        return (HELMERT.to(x.dtype).T @ x.unflatten(-1, (N, D))).flatten(-2)


class PairForces(Control):
    """u = H^T sum_j f(|x_i - x_j|, t) (x_i - x_j): equivariant under permutations and rotations."""

    def __init__(self, process):
        super().__init__()
        self.force = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))

    def forward(self, embedding, x, score=None):
        at = HELMERT.to(x.dtype) @ x.unflatten(-1, (N - 1, D))
        apart = at.unsqueeze(-2) - at.unsqueeze(-3)
        square = apart.square().sum(-1, keepdim=True)
        time = embedding[..., None, None, :].expand(*square.shape)
        forces = (self.force(torch.cat([square, time], -1)) * apart).sum(-2)
        return (HELMERT.to(x.dtype).T @ forces).flatten(-2)


@pytest.mark.slow
def test_log_z_and_equivariance():
    pairs = torch.combinations(torch.arange(N)).T

    def log_prob(x):
        at = x.unflatten(-1, (N, D))
        return -0.5 * (at[..., pairs[0], :] - at[..., pairs[1], :]).square().sum((-1, -2))  # N / 2 |z|^2

    sampler = Sampler(FunctionTarget(log_prob, dim=N * D), control=PairForces, flow=None, grid=20, coordinates=MeanFree)
    from diffsampler.losses import TrajectoryBalance

    fit(sampler, max_steps=50, loss=TrajectoryBalance(), lr=3e-3, enable_progress_bar=False, accelerator="cpu")
    x, log_weight = sampler.sample(20_000, seed=1, return_log_weights=True)
    weight = log_weight.exp() / (2 * math.pi / N) ** (0.5 * (N - 1) * D)
    # E[w] = Z: within 4.5 standard errors, a false alarm of 7e-6.
    assert abs(weight.mean() - 1) < 4.5 * weight.std() / 20_000**0.5 and weight.std() < 3
    assert x.unflatten(-1, (N, D)).mean(1).abs().max() < 1e-5
    control, z = sampler.policy.control, sampler.coordinates.inverse(x[:5])
    swapped = sampler.coordinates.inverse(x[:5].unflatten(-1, (N, D))[:, [2, 0, 3, 1]].flatten(1))
    names = [sampler.coordinates(control(torch.ones(1), one))[0].unflatten(-1, (N, D)) for one in (z, swapped)]
    torch.testing.assert_close(names[0][:, [2, 0, 3, 1]], names[1], rtol=1e-4, atol=1e-5)
