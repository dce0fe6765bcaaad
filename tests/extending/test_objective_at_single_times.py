"""An objective that asks the network once for each end point: bridge matching."""

import torch

from diffsampler import Sampler, fit
from diffsampler.behaviours import ExpertSamples
from diffsampler.losses import Objective
from diffsampler.networks import FourierMLP
from targets import GaussianMixture


class BridgeMatching(Objective):
    """Regress the control at a time t on what leads to the end point, (x_1 - x_t) / (1 - t), on a Brownian bridge."""

    uses_log_z = False
    backward = True

    def step(self, dynamics, behaviour, n, generator, progress):
        end = behaviour.paths(dynamics, n, generator, progress).x[-1]
        t = 0.99 * torch.rand(n, 1, generator=generator, device=end.device)
        x = t * end + (t * (1 - t)).sqrt() * torch.randn(end.shape, generator=generator, device=end.device)
        policy = dynamics.policy
        control = policy.control(policy.embed(t.squeeze(-1)), x)
        return (1 - t.squeeze(-1)) @ (control - (end - x) / (1 - t)).square().sum(-1) / n


def test_matching_brings_the_bound_up():
    sampler = Sampler(GaussianMixture([[1.5, 0.0], [-1.0, 1.0]], 0.3), control=FourierMLP, flow=None, grid=32)
    before = sampler.estimate_log_z(2000, seed=0).elbo
    options = {"lr": 3e-3, "tolerance": 0, "enable_progress_bar": False, "accelerator": "cpu"}
    history = fit(sampler, max_steps=300, loss=BridgeMatching(), behaviour=ExpertSamples(), **options)
    spent = sampler.num_target_evaluations
    assert history[-1]["elbo"] > before + 2 and sampler.estimate_log_z(2000, seed=0).elbo > before + 2
    assert spent < 20_000  # no target evaluation but for the check and the validations
