"""Families whose log Z is known exactly, where it is asked for, and what else is known of them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from diffsampler import FunctionTarget, Sampler
from diffsampler.curves import thermodynamics
from diffsampler.families import Amortised, Coupled, Family, Scalarised, Tempered
from targets import DoubleWell4, Gaussian, Phi4Hopping, U1Gauge

BETAS = (0.1, 0.3, 0.5, 1.0, 1.5, 2.0)
NUM_WELLS = 4
KAPPA_LOG_Z = {0.2: 10.05065452, 0.25: 10.99430883, 0.3: 17.52231}  # transfer matrix on Gauss nodes
DATA_DIM, VARIANCE = 10, 0.1


class Case(NamedTuple):
    """A family, contexts with shape (K, C), their exact log Z with shape (K), and how it is trained and measured."""

    family: Family
    contexts: Tensor
    log_z: Tensor
    max_steps: int
    num_draws: int
    more: Callable[[Sampler, int], dict[str, Any]] = lambda sampler, seed: {}
    shown: Tensor | None = None  # contexts of a figure, those of known log Z among them


def well(x: Tensor) -> Tensor:
    """The energy of a coordinate."""
    return x**4 - 3 * x**2 + 0.5 * x


def wells_truth(beta: float) -> tuple[float, float, float]:
    """log Z, mean energy and heat capacity of all wells, by quadrature of one."""
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    energy = well(x)
    log_z = float((-beta * energy).logsumexp(0)) + math.log(float(x[1] - x[0]))
    weight = (-beta * energy).softmax(0)
    mean = float(weight @ energy)
    capacity = beta**2 * float(weight @ (energy - mean).square())
    return NUM_WELLS * log_z, NUM_WELLS * mean, NUM_WELLS * capacity


def wells(seed: int) -> Case:
    target = FunctionTarget(lambda x: -well(x).sum(-1), dim=NUM_WELLS)
    truth = torch.tensor([wells_truth(beta) for beta in BETAS], dtype=torch.float64)
    contexts = torch.tensor(BETAS, dtype=torch.float64).log().unsqueeze(-1)

    def more(sampler: Sampler, seed: int) -> dict[str, Any]:
        """Energies and heat capacities, which take more draws."""
        found = thermodynamics(sampler, BETAS, 400_000, seed=1000 + seed)
        z = (found.energy - truth[:, 1]) / found.energy_error
        return {
            "energy_z": z.abs().max().item(),
            "heat_capacity_error": (found.heat_capacity / truth[:, 2] - 1).abs().max().item(),
            "heat_capacity_z": ((found.heat_capacity - truth[:, 2]) / found.heat_capacity_error).abs().max().item(),
        }

    return Case(Tempered(target, 0.1, 2.0), contexts, truth[:, 0], 9000, 4000, more)


def phi4(seed: int) -> Case:
    family = Coupled(Phi4Hopping, {"kappa": (0.2, 0.3)}, shape=(4, 4))
    kappa, log_z = (torch.tensor(column, dtype=torch.float64) for column in zip(*KAPPA_LOG_Z.items(), strict=True))
    shown = torch.tensor([0.2, 0.22, 0.24, 0.25, 0.26, 0.27, 0.28, 0.285, 0.29, 0.295, 0.3], dtype=torch.float64)
    return Case(family, kappa.unsqueeze(-1), log_z, 6000, 400_000, shown=shown.unsqueeze(-1))


def linear_gaussian(seed: int) -> Case:
    """Posterior and evidence are normal; one hundred data sets that were not trained on."""
    scale = VARIANCE**0.5
    family = Amortised(
        prior=Independent(Normal(torch.zeros(DATA_DIM), scale), 1),
        simulate=lambda x: x + scale * torch.randn_like(x),
        log_likelihood=lambda x, data: Independent(Normal(x, scale), 1).log_prob(data),
    )
    data = family.sample_jointly(100, torch.Generator().manual_seed(10_000 + seed))[1].double()
    evidence = Independent(Normal(torch.zeros(DATA_DIM, dtype=torch.float64), (2 * VARIANCE) ** 0.5), 1)
    return Case(family, data, evidence.log_prob(data), 400, 4000)


def preferences(kind: str, seed: int) -> Case:
    """Three Gaussian rewards in three dimensions, and twenty preferences that were not trained on."""
    mean = 1.5 * torch.eye(3, dtype=torch.float64)
    variance = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    rewards = [Gaussian(mean=m.tolist(), covariance=float(v)) for m, v in zip(mean, variance, strict=True)]
    family = Scalarised(rewards, kind)
    weight = family.sample_contexts(20, torch.Generator().manual_seed(10_000 + seed))
    log_z = torch.tensor([reward.log_z for reward in rewards], dtype=torch.float64)
    if kind == "sum":
        return Case(family, weight, (weight.log() + log_z).logsumexp(-1), 1000, 4000)
    # A product of Gaussians, whose precision is the mean of theirs.
    log_c = log_z - 1.5 * (2 * math.pi * variance).log()
    precision, pull = weight @ (1 / variance), weight @ (mean / variance.unsqueeze(-1))
    of_product = weight @ (log_c - 0.5 * mean.square().sum(-1) / variance) + 0.5 * pull.square().sum(-1) / precision
    return Case(family, weight, of_product + 1.5 * (2 * math.pi / precision).log(), 400, 4000)


def gamma(seed: int) -> Case:
    """A product of Gamma densities, within their support, at all temperatures: of each, another Gamma density."""
    shape, betas = torch.tensor([3.0, 1.5], dtype=torch.float64), (0.5, 0.7, 1.0, 1.4, 1.9)
    target = FunctionTarget(
        lambda x: (x.log() * (shape - 1).to(x) - x).sum(-1), dim=2, support=torch.distributions.constraints.positive
    )
    beta = torch.tensor(betas, dtype=torch.float64)
    shapes = beta.unsqueeze(-1) * (shape - 1) + 1
    log_z = (shapes.lgamma() - shapes * beta.log().unsqueeze(-1)).sum(-1)
    return Case(Tempered(target, 0.5, 2.0), beta.log().unsqueeze(-1), log_z, 1000, 4000)


def rotators(seed: int) -> Case:
    """2 cos x_0 + cos(x_1 - x_0), of two angles: Z = (2 pi)^2 I_0(2 beta) I_0(beta)."""
    target = FunctionTarget(lambda x: 2 * x[..., 0].cos() + (x[..., 1] - x[..., 0]).cos(), dim=2, periodic=True)
    beta = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    log_z = 2 * math.log(2 * math.pi) + torch.special.i0(2 * beta).log() + torch.special.i0(beta).log()
    return Case(Tempered(target, 0.5, 4.0), beta.log().unsqueeze(-1), log_z, 100, 4000)


def u1(seed: int) -> Case:
    beta = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    log_z = torch.tensor([U1Gauge((4, 4), one).log_z for one in beta.tolist()], dtype=torch.float64)
    return Case(Coupled(U1Gauge, {"beta": (1.0, 4.0)}, shape=(4, 4)), beta.unsqueeze(-1), log_z, 600, 2000)


class AtBeta(DoubleWell4):
    """DW-4 at another temperature, for the quadrature that its log Z is found by."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def pair_energy(self, squared: Tensor) -> Tensor:
        return self.beta * super().pair_energy(squared)


def dw4(seed: int) -> Case:
    beta = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    log_z = torch.tensor([AtBeta(one).log_z for one in beta.tolist()], dtype=torch.float64)
    return Case(Tempered(DoubleWell4(), 0.5, 2.0), beta.log().unsqueeze(-1), log_z, 800, 2000)


CASES: dict[str, Callable[[int], Case]] = {
    "wells": wells,
    "phi4": phi4,
    "linear_gaussian": linear_gaussian,
    "gamma": gamma,
    "rotators": rotators,
    "u1": u1,
    "dw4": dw4,
    "preferences_sum": lambda seed: preferences("sum", seed),
    "preferences_log_linear": lambda seed: preferences("log-linear", seed),
}
