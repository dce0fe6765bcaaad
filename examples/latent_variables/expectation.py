"""GFlowNet-EM: a diffusion sampler of p(z | x) for the E-step, its own weighted paths for both steps."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from diffsampler import Sampler
from diffsampler.families import Family
from diffsampler.networks import LearnedVariance, PreconditionedMLP
from diffsampler.paths import Dynamics, Path, evaluate, rollback, rollout
from diffsampler.processes import Conditional, VariancePreserving
from examples.latent_variables.decoders import Decoder


class LatentPosterior(Family):
    """p(z) p(x | z) as densities of z, with x for a context: log Z is log p(x), under the decoder as it is now."""

    def __init__(self, decoder: Decoder, data: Tensor) -> None:
        super().__init__(decoder.latent_dim, decoder.data_dim)
        self.decoder, self.data = decoder, data

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        return self.decoder.log_joint(x, context)

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.data[torch.randint(len(self.data), (n,), generator=generator)]


class DiffusionPosterior(nn.Module):
    """A decoder and a conditional diffusion sampler of its latents.

    Paths are rolled out once a step, K for each x, and weighed: their self-normalised weights w make

    - the M-step: sum_k w_k grad log p(x, z_k), the gradient of log p(x) up to O(1 / K);
    - the E-step: -sum_k w_k log P_F(path k), maximum likelihood on the posterior's paths, forward KL, which covers
      every mode (reweighted wake-sleep, Bornschein & Bengio, 2015, arXiv:1406.2751).

    Beside these, dreams: z from the prior and x from the decoder are an exact draw of the posterior of that x, and
    paths rolled back from it are fitted too. They hold the sampler wide where weights of few draws would not.

    Arguments:
        decoder: p(x | z).
        data: what is trained on, with shape (N, D).
        num_draws: K.
        num_steps: of a path.
        width: of the sampler's networks.
    """

    def __init__(self, decoder: Decoder, data: Tensor, num_draws: int, num_steps: int = 8, width: int = 64) -> None:
        super().__init__()
        self.decoder, self.num_draws = decoder, num_draws
        network = partial(PreconditionedMLP, width=width)
        self.sampler = Sampler(
            LatentPosterior(decoder, data),
            process=VariancePreserving,
            control=partial(LearnedVariance, network=network, width=width),
            flow=None,
            grid=num_steps,
        )

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Of both steps, with shape (), for data with shape (n, D): gradients of neither reach the other's parameters.

        The decoder is evaluated once at every draw.
        """
        dynamics = self._walking_on(x.repeat_interleave(self.num_draws, 0))
        path = rollout(dynamics, len(x) * self.num_draws, generator)
        log_joint = self.decoder.log_joint(*self._apart(path.x[-1]))
        trajectory = evaluate(dynamics, replace(path, log_prob=log_joint.detach()[None]), with_flow=False)
        weight = trajectory.log_weight.detach().reshape(len(x), -1).softmax(1).flatten().float()
        maximisation = -(weight * log_joint).sum() / len(x)
        wake = -(weight * trajectory.log_pf.sum(0)).sum() / len(x)
        return maximisation + wake + self._dream(len(x), generator)

    @torch.no_grad()
    def weighted_draws(self, x: Tensor, num_draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and log-weights, with shapes (n, K, d) and (n, K), for data with shape (n, D)."""
        dynamics = self._walking_on(x.repeat_interleave(num_draws, 0))
        path = rollout(dynamics, len(x) * num_draws, generator)
        z = self._apart(path.x[-1])[0]
        log_weight = evaluate(dynamics, path, with_flow=False).log_weight
        return z.reshape(len(x), num_draws, -1), log_weight.reshape(len(x), num_draws)

    def _dream(self, n: int, generator: torch.Generator) -> Tensor:
        """Minus the mean log-density of paths rolled back from exact draws."""
        with torch.no_grad():
            z = torch.randn(n, self.decoder.latent_dim, generator=generator)
            pairs = torch.cat([z, self.decoder.sample(z, generator)], -1)
        dynamics = self.sampler.dynamics
        path = rollback(dynamics, pairs, generator)
        # Its density is not asked for: only that of the transitions is fitted.
        path = Path(path.times, path.x, log_prob=torch.zeros(1, n, dtype=torch.float64))
        return -evaluate(dynamics, path, with_flow=False).log_pf.sum(0).mean()

    def _walking_on(self, contexts: Tensor) -> Dynamics:
        """The sampler's dynamics with a context for each trajectory, with shape (B, D)."""
        policy, dynamics = self.sampler.policy, self.sampler.dynamics
        process = Conditional(policy.process.process, lambda n, generator: contexts, self.decoder.data_dim)
        return replace(dynamics, policy=policy.with_process(process))

    def _apart(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and data."""
        return state.split([self.decoder.latent_dim, self.decoder.data_dim], -1)
