"""What GFlowNet-EM is compared with: a Gaussian encoder, trained as a VAE or an IWAE."""

import math

import torch
from torch import Tensor, nn

from examples.latent_variables.decoders import Decoder


def perceptron(in_dim: int, width: int, out_dim: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(in_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, out_dim)
    )


class Encoder(nn.Module):
    """q(z | x), Gaussian with a diagonal covariance."""

    def __init__(self, latent_dim: int, data_dim: int, width: int = 128) -> None:
        super().__init__()
        self.network = perceptron(data_dim, width, 2 * latent_dim)

    def draw(self, x: Tensor, num_draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents with shape (n, K, d), by reparametrisation, and their log-densities with shape (n, K)."""
        mean, log_scale = self.network(x).unsqueeze(1).chunk(2, -1)
        noise = torch.randn(len(x), num_draws, mean.shape[-1], generator=generator)
        log_density = (-0.5 * noise.square() - log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)
        return mean + log_scale.exp() * noise, log_density


class Variational(nn.Module):
    """A VAE: the mean of the log-weights (Kingma & Welling, 2014, arXiv:1312.6114)."""

    def __init__(self, decoder: Decoder, num_draws: int) -> None:
        super().__init__()
        self.decoder, self.num_draws = decoder, num_draws
        self.encoder = Encoder(decoder.latent_dim, decoder.data_dim)

    def weighted_draws(self, x: Tensor, num_draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and log-weights, with shapes (n, K, d) and (n, K), for data with shape (n, D)."""
        z, log_density = self.encoder.draw(x, num_draws, generator)
        return z, self.decoder.log_joint(z, x.unsqueeze(1)) - log_density

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return -self.weighted_draws(x, self.num_draws, generator)[1].mean()


class ImportanceWeighted(Variational):
    """An IWAE: the log of the mean weight (Burda et al., 2016, arXiv:1509.00519)."""

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        log_weight = self.weighted_draws(x, self.num_draws, generator)[1]
        return math.log(self.num_draws) - log_weight.logsumexp(1).mean()
