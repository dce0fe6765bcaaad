"""GFlowNet-EM: a diffusion sampler of p(z | x) for the E-step, its own weighted paths for both steps."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from diffsampler import Sampler
from diffsampler.families import Family
from diffsampler.paths import Dynamics, Path, Trajectory, evaluate, rollback, rollout
from diffsampler.processes import VariancePreserving
from examples.latent_variables.decoders import Decoder
from examples.latent_variables.encoded_control import EncodedControl


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
        width: of the sampler's network.
    """

    def __init__(self, decoder: Decoder, data: Tensor, num_draws: int, num_steps: int = 2, width: int = 64) -> None:
        super().__init__()
        self.decoder, self.num_draws = decoder, num_draws
        sizes = {"latent_dim": decoder.latent_dim, "data_dim": decoder.data_dim}
        control = partial(EncodedControl, **sizes, width=width)
        parts = {"process": VariancePreserving, "control": control, "flow": None}
        self.sampler = Sampler(LatentPosterior(decoder, data), grid=num_steps, **parts)

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Of both steps, with shape (), for data with shape (n, D): gradients of neither reach the other's parameters.

        The decoder is evaluated once at every draw.
        """
        n = len(x)
        path, encodings = self._walk(x, self.num_draws, generator)
        log_joint = self._log_joint(path, x)
        dreamt, dream_encodings = self._dream(n, generator)
        # One pass for both kinds of paths; of dreams no density is asked for, only that of their transitions.
        values = torch.cat([log_joint.detach().double().flatten(), torch.zeros(n, dtype=torch.float64)])
        joined = Path(path.times, torch.cat([path.x, dreamt.x], 1), log_prob=values[None])
        trajectory = self._evaluate(joined, torch.cat([encodings, dream_encodings]))
        log_pf, num_walked = trajectory.log_pf.sum(0), n * self.num_draws
        weight = trajectory.log_weight[:num_walked].detach().view(n, -1).softmax(1)
        maximisation = -(weight.to(log_joint.dtype) * log_joint).sum() / n
        wake = -(weight.flatten() * log_pf[:num_walked]).sum() / n
        return maximisation + wake - log_pf[num_walked:].mean()

    @torch.no_grad()
    def weighted_draws(self, x: Tensor, num_draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and log-weights, with shapes (n, K, d) and (n, K), for data with shape (n, D)."""
        path, encodings = self._walk(x, num_draws, generator)
        values = self._log_joint(path, x).double().flatten()
        trajectory = self._evaluate(replace(path, log_prob=values[None]), encodings)
        return path.x[-1].view(len(x), num_draws, -1), trajectory.log_weight.view(len(x), num_draws)

    def _walk(self, x: Tensor, num_draws: int, generator: torch.Generator) -> tuple[Path, Tensor]:
        """Paths of latents, K for each x, and the encodings of x for each, with shape (n K, width)."""
        control = self.sampler.policy.control
        encodings = control.encode(x).repeat_interleave(num_draws, 0)
        with control.given_encodings(encodings.detach()):
            return rollout(self._dynamics, len(encodings), generator), encodings

    def _dream(self, n: int, generator: torch.Generator) -> tuple[Path, Tensor]:
        """Paths rolled back from exact draws of latents, and the encodings of their x, with shape (n, width)."""
        with torch.no_grad():
            z = torch.randn(n, self.decoder.latent_dim, generator=generator)
            x = self.decoder.sample(z, generator)
        return rollback(self._dynamics, z, generator), self.sampler.policy.control.encode(x)

    def _evaluate(self, path: Path, encodings: Tensor) -> Trajectory:
        with self.sampler.policy.control.given_encodings(encodings):
            return evaluate(self._dynamics, path, with_flow=False)

    def _log_joint(self, path: Path, x: Tensor) -> Tensor:
        """At the ends of paths, with shape (n, K)."""
        z = path.x[-1].view(len(x), -1, self.decoder.latent_dim)
        return self.decoder.log_joint(z, x.unsqueeze(1))

    @property
    def _dynamics(self) -> Dynamics:
        """The sampler's, of latents alone: states without data are 33 times smaller for digits."""
        policy = self.sampler.policy.with_process(self.sampler.policy.process.process)
        policy.log_z_network = None  # which would look for a context in the states
        return replace(self.sampler.dynamics, policy=policy)
