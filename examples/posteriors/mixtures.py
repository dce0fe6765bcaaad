"""Mixtures of three Gaussians, without order: every posterior has six equal copies of itself."""

import torch
from torch import Tensor
from torch.distributions import Dirichlet, HalfNormal, InverseGamma, Normal

from examples.posteriors.base import CubedModel, Values


class Mixture(CubedModel):
    """Three Gaussians, fitted to 150 simulated numbers: 8-d, with six labellings."""

    def __init__(self) -> None:
        def log_likelihood(p: Values, y: Tensor) -> Tensor:
            return mixture(p["w"], p["mu"], p["sigma"], y)

        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(150, generator=generator, dtype=torch.float64)
        mean = torch.tensor([-4.0, 0.0, 4.0]).double().repeat_interleave(torch.tensor([45, 45, 60]))
        scale = torch.tensor([1.0, 0.7, 1.2]).double().repeat_interleave(torch.tensor([45, 45, 60]))
        super().__init__(
            prior={
                "w": Dirichlet(torch.ones(3)),
                "mu": Normal(torch.zeros(3), 5.0),
                "sigma": HalfNormal(2.0 * torch.ones(3)),
            },
            log_likelihood=log_likelihood,
            data=mean + scale * noise,
        )

    def identified(self, values: Values) -> Values:
        return by_mean(values)


class Galaxies(CubedModel):
    """Velocities of 82 galaxies (Roeder, 1990) as three Gaussians, with the priors of Chib: 8-d, six labellings.

    Marginal likelihood from the Gibbs output, Chib, 1995, whose -228.62 lacks log 6, as Neal found: Erroneous results
    in "Marginal likelihood from the Gibbs output", 1999.
    """

    velocities = """
        9172 9350 9483 9558 9775 10227 10406 16084 16170 18419 18552 18600 18927 19052 19070 19330 19343 19349 19440
        19473 19529 19541 19547 19663 19846 19856 19863 19914 19918 19973 19989 20166 20175 20179 20196 20215 20221
        20415 20629 20795 20821 20846 20875 20986 21137 21492 21701 21814 21921 21960 22185 22209 22242 22249 22314
        22374 22495 22746 22747 22888 22914 23206 23241 23263 23484 23538 23542 23666 23706 23711 24129 24285 24289
        24366 24717 24990 25633 26960 26995 32065 32789 34279
        """

    def __init__(self) -> None:
        def log_likelihood(p: Values, y: Tensor) -> Tensor:
            return mixture(p["w"], p["mu"], p["variance"].sqrt(), y)

        super().__init__(
            prior={
                "w": Dirichlet(torch.ones(3)),
                "mu": Normal(20 * torch.ones(3), 10.0),
                "variance": InverseGamma(3 * torch.ones(3), 20.0),
            },
            log_likelihood=log_likelihood,
            data=torch.tensor([int(one) / 1000 for one in self.velocities.split()], dtype=torch.float64),
        )

    def identified(self, values: Values) -> Values:
        return by_mean(values)


def mixture(weight: Tensor, mean: Tensor, scale: Tensor, y: Tensor) -> Tensor:
    """The log-density of each number, with shape (B, N), for parameters with shape (B, K)."""
    each = Normal(mean[:, None], scale[:, None]).log_prob(y[:, None])
    return (weight.log()[:, None] + each).logsumexp(-1)


def by_mean(values: Values) -> Values:
    """The same, with components in the order of their means."""
    order = values["mu"].argsort(-1)
    return {name: value.gather(-1, order) for name, value in values.items()}
