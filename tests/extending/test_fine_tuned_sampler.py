"""A fine-tuned sampler: the path measure that weighs is a frozen sampler's, and the target a reward on its draws."""

from copy import deepcopy
from functools import partial

import pytest
import torch

from diffsampler import FunctionTarget, Sampler, fit
from diffsampler.losses import TrajectoryBalance
from diffsampler.networks import FourierMLP
from diffsampler.paths import PathMeasure
from diffsampler.processes import VariancePreserving


class ForwardMeasure(PathMeasure):
    """What a sampler without score does by itself."""

    def __init__(self, policy):
        super().__init__()
        self.policy = deepcopy(policy).requires_grad_(False)

    def log_start(self, x):
        return self.policy.process.prior.log_prob(x)

    def log_step(self, s, t, x, y):
        embedding = self.policy.embed(s.flatten())
        embedding = embedding.unsqueeze(1) if s.ndim else embedding.squeeze(0)
        return self.policy.forward_kernel(s, t, x, self.policy.control(embedding, x), None).log_prob(y)


@pytest.mark.slow
def test_the_mean_reward_of_a_frozen_sampler():
    reward = FunctionTarget(lambda x: x[..., 0] - 0.5 * x[..., 1], dim=2)  # E[exp] = exp(5 / 8) under N(0, I)
    parts = {"process": partial(VariancePreserving, sigma=1.0), "control": FourierMLP, "flow": None, "grid": 20}
    frozen = Sampler(reward, **parts)  # without control: N(0, I), which the process keeps
    sampler = Sampler(reward, **parts, measure=ForwardMeasure(frozen.policy))
    before = sampler.estimate_log_z(5000, seed=1)
    options = {"lr": 5e-3, "ema_decay": 0.0, "enable_progress_bar": False, "accelerator": "cpu"}
    fit(sampler, max_steps=100, loss=TrajectoryBalance(), **options)
    after = sampler.estimate_log_z(5000, seed=1)
    # E[w] = E[reward]: intervals of 4.5 standard errors, a false alarm of 7e-6 each.
    for estimate in (before, after):
        assert abs(estimate.log_z - 0.625) < 4.5 / 1.96 * (estimate.high - estimate.low) / 2
    assert before.ess < 0.4 and after.ess > 0.9
    assert torch.equal(frozen.sample(9, seed=0), Sampler(reward, **parts).sample(9, seed=0))
