"""What GFlowNet-EM is compared with: a Gaussian encoder, trained as a VAE or an IWAE."""

import math

import torch
from torch import Tensor, nn

from examples.latent_variables.decoders import Decoder


class Encoder(nn.Module):
    """q(z | x), Gaussian with a diagonal covariance."""

    def __init__(self, latent_dim: int, data_dim: int, width: int = 128) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(data_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2 * latent_dim)
        )

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

    def log_weight(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """With shape (n, K), for data with shape (n, D)."""
        z, log_density = self.encoder.draw(x, self.num_draws, generator)
        data = x.unsqueeze(1).expand(-1, self.num_draws, -1)
        return self.decoder.log_joint(z, data) - log_density

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return -self.log_weight(x, generator).mean()


class ImportanceWeighted(Variational):
    """An IWAE: the log of the mean weight (Burda et al., 2016, arXiv:1509.00519)."""

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return math.log(self.num_draws) - self.log_weight(x, generator).logsumexp(1).mean()
