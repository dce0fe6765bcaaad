"""Posteriors of one model that can be simulated, for all data."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from diffsampler.errors import InputError, check_instance
from diffsampler.families.family import Family


class Simulated(Family):
    """The posterior of every data set, where no likelihood is known: learned from simulations alone.

    Parameters from the prior with data simulated from them are exact draws of all posteriors. Training is maximum
    likelihood on fresh ones, neural posterior estimation: `sampler.given(data).sample(n)` are draws of what was
    learned, `log_prob` is their density. There are no weights, hence neither evidence nor verdict: `Amortised` has
    these.

    References:
        Automatic posterior transformation for likelihood-free inference, Greenberg et al., 2019, arXiv:1905.07488.

    Arguments:
        prior: of x, on R^D: a distribution of torch with one event dimension, such as `MultivariateNormal`.
        simulate: data with shape (n, C) for parameters with shape (n, D). It draws from torch's global generator,
            which is seeded for it.
    """

    differentiable = False
    has_density = False

    def __init__(self, prior: Distribution, simulate: Callable[[Tensor], Tensor]) -> None:
        check_instance("prior", prior, Distribution, "MultivariateNormal(torch.zeros(2), torch.eye(2))")
        if len(prior.event_shape) != 1 or prior.batch_shape:
            raise InputError(
                "prior must be one distribution of vectors, as Independent(Normal(loc, scale), 1) is, got batch shape "
                f"{tuple(prior.batch_shape)} and event shape {tuple(prior.event_shape)}."
            )
        data = _simulated(prior, simulate, 2, None)[1]
        super().__init__(prior.event_shape[0], data.shape[-1])
        self.prior, self.simulate = prior, simulate

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        raise no_likelihood(self.known_as)

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_jointly(n, generator)[1]

    def sample_jointly(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return _simulated(self.prior, self.simulate, n, generator)


def no_likelihood(name: str) -> InputError:
    """What is said where a density is needed, of a family of that name."""
    return InputError(
        f"no likelihood is known: {name} gives draws of the learned posterior, by sample, and their density, by the "
        "sampler's log_prob, but neither weights nor evidence. Amortised(prior, simulate, log_likelihood) has these."
    )


def _simulated(
    prior: Distribution, simulate: Callable[[Tensor], Tensor], n: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Parameters and data, with shapes (n, D) and (n, C)."""
    with torch.random.fork_rng(devices=[]):
        if generator is not None:
            torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator, device=generator.device)))
        x = prior.sample((n,))
        data = simulate(x)
    if not isinstance(data, Tensor) or data.ndim != 2 or len(data) != n:
        shown = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
        raise InputError(f"simulate must return data with shape (n, C), here n = {n}, got {shown}.")
    return x, data
