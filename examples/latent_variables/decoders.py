"""Models p(z) p(x | z), with z from a standard normal distribution."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Decoder(nn.Module, ABC):
    """p(x | z), normalised.

    Arguments:
        latent_dim: the dimension d of z.
        data_dim: the dimension D of x.
    """

    def __init__(self, latent_dim: int, data_dim: int) -> None:
        super().__init__()
        self.latent_dim, self.data_dim = latent_dim, data_dim

    @abstractmethod
    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x | z), with shape (*), for latents with shape (*, d) and data with shape (*, D)."""

    @abstractmethod
    def log_likelihood_of_pairs(self, z: Tensor, x: Tensor) -> Tensor:
        """The same of all pairs, with shape (n, m), for latents with shape (n, d) and data with shape (m, D)."""

    @abstractmethod
    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Data with shape (n, D) for latents with shape (n, d)."""

    def log_joint(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(z) + log p(x | z), with shape (*)."""
        return log_prior(z) + self.log_likelihood(z, x)


def log_prior(z: Tensor) -> Tensor:
    """Of a standard normal distribution, with shape (*), for z with shape (*, d)."""
    return -0.5 * z.square().sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


class BinomialDecoder(Decoder):
    """Every pixel counts `trials` trials, with a success probability that a perceptron gives.

    Data are counts over trials, in [0, 1]: the grey values 0 to 16 of scikit-learn's digits, over 16.
    """

    def __init__(self, latent_dim: int = 2, data_dim: int = 64, width: int = 64, trials: int = 16) -> None:
        super().__init__(latent_dim, data_dim)
        self.trials = trials
        self.network = nn.Sequential(
            nn.Linear(latent_dim, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, data_dim)
        )

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        logit, count = self.network(z), self.trials * x
        terms = count * logit - self.trials * nn.functional.softplus(logit)
        return terms.sum(-1) + self._log_choices(count)

    def log_likelihood_of_pairs(self, z: Tensor, x: Tensor) -> Tensor:
        logit, count = self.network(z), self.trials * x
        none = self.trials * nn.functional.softplus(logit).sum(-1, keepdim=True)
        return logit @ count.T - none + self._log_choices(count)

    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        probability = self.network(z).sigmoid()
        # Of a single trial, as digits have it, half of what torch.binomial takes; of sixteen, twice that.
        return torch.bernoulli(probability.expand(self.trials, *probability.shape), generator=generator).mean(0)

    def _log_choices(self, count: Tensor) -> Tensor:
        """The log of the binomial coefficients: without these it is no density of counts."""
        whole = torch.tensor(self.trials + 1.0).to(count).lgamma()
        return (whole - (count + 1).lgamma() - (self.trials - count + 1).lgamma()).sum(-1)


class LinearGaussianDecoder(Decoder):
    """x ~ N(W z + mean, s^2 I): probabilistic principal component analysis (Tipping & Bishop, 1999)."""

    def __init__(self, latent_dim: int, data_dim: int, generator: torch.Generator) -> None:
        super().__init__(latent_dim, data_dim)
        self.weight = nn.Parameter(0.5 * torch.randn(data_dim, latent_dim, generator=generator))
        self.mean = nn.Parameter(torch.zeros(data_dim))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        residual = (x - z @ self.weight.T - self.mean) * (-self.log_scale).exp()
        constant = self.data_dim * (self.log_scale + 0.5 * math.log(2 * math.pi))
        return -0.5 * residual.square().sum(-1) - constant

    def log_likelihood_of_pairs(self, z: Tensor, x: Tensor) -> Tensor:
        return self.log_likelihood(z[:, None], x)

    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(z), self.data_dim, generator=generator)
        return z @ self.weight.T + self.mean + self.log_scale.exp() * noise

    def log_marginal(self, x: Tensor) -> Tensor:
        """log p(x) in closed form, with shape (n)."""
        noise = (2 * self.log_scale).exp() * torch.eye(self.data_dim)
        covariance = self.weight @ self.weight.T + noise
        return torch.distributions.MultivariateNormal(self.mean, covariance).log_prob(x)


def highest_log_likelihood(x: Tensor, latent_dim: int) -> float:
    """The mean log-likelihood of the best `LinearGaussianDecoder` in closed form, for data with shape (N, D)."""
    x = x.double()
    eigenvalues = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x)).flip(0)
    kept, left = eigenvalues[:latent_dim], eigenvalues[latent_dim:]
    dim = x.shape[1]
    return -0.5 * float(dim * math.log(2 * math.pi) + kept.log().sum() + len(left) * left.mean().log() + dim)
