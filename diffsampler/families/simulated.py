"""Posteriors of one model that can be simulated, for all data."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from diffsampler.errors import InputError
from diffsampler.families.family import Family, Member, read_context, rows_of_usable
from diffsampler.families.unknowns import Unknowns, read_unknowns

NUM_TRIED = 64
NUM_COMPARED = 1024  # with data, as few as four steps of training see
FAILED = (
    "simulate has returned NaN or infinity for some draws, which are left out: posteriors given finite data stay "
    "right, but what makes simulations fail is worth a look."
)


class Simulated(Family):
    """The posterior of every data set, where no likelihood is known: learned from simulations alone.

    Parameters from the prior with data simulated from them are exact draws of all posteriors. Training is maximum
    likelihood on fresh ones, neural posterior estimation: `sampler.given(data).sample(n)` are draws of what was
    learned, `log_prob` is their density. There are no weights, hence neither evidence nor verdict: `Amortised` has
    these.

    References:
        Automatic posterior transformation for likelihood-free inference, Greenberg et al., 2019, arXiv:1905.07488.

    Arguments:
        prior: of x, on R^D: a distribution of torch with one event dimension, such as `MultivariateNormal`. Or one for
            each parameter by its name, as in `ModelTarget`: positive ones, bounded ones, simplexes. x are then the free
            numbers that stand for them, and `sampler.given(data).target.constrain(x)` are values by name.
        simulate: data with shape (n, C) for parameters with shape (n, D), or for a dictionary of values, each with
            shape (n, *shape). It draws from torch's global generator, which is seeded for it.
        dims, coords: of named parameters, as in `ModelTarget`.
    """

    differentiable = False
    has_density = False

    def __init__(
        self,
        prior: Distribution | Mapping[str, Distribution],
        simulate: Callable[[Any], Tensor],
        *,
        dims: Mapping[str, list[str]] | None = None,
        coords: Mapping[str, list[Any]] | None = None,
    ) -> None:
        unknowns = read_unknowns(prior, dims, coords)
        data = _simulated(unknowns, simulate, NUM_TRIED, torch.Generator().manual_seed(0))[1]
        super().__init__(unknowns.dim, data.shape[-1])
        self.register_buffer("is_whole", (data == data.round()).all(0), persistent=False)
        self.prior, self.simulate, self.unknowns = prior, simulate, unknowns

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        raise no_likelihood(self.known_as)

    def sample_contexts(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_jointly(n, generator)[1]

    def sample_jointly(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return _simulated(self.unknowns, self.simulate, n, generator)

    def beyond_training(self, context: Tensor) -> str | None:
        # As far beyond the range of simulations as that is wide: nine standard deviations of a Gaussian.
        low, high = (end.to(context) for end in self._range)
        far = (context < 2 * low - high) | (context > 2 * high - low)
        if not far.any():
            return None
        k = int(far.nonzero()[0])
        return (
            f"Number {k + 1} of the data is {float(context[k]):.4g}, far from all of {NUM_COMPARED} simulations, "
            f"{float(low[k]):.4g} to {float(high[k]):.4g}: training never sees such data, and what was learned says "
            "nothing of them. Are they in the units of simulate, and in its order?"
        )

    @cached_property
    def _range(self) -> tuple[Tensor, Tensor]:
        """Of each number of simulated data, with shape (C)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = self.sample_jointly(NUM_COMPARED, torch.Generator().manual_seed(1))[1]
        return data.amin(0), data.amax(0)

    def given(self, context: Tensor | Sequence[float] | float) -> Member:
        return self.unknowns.member(self, read_context(self, context))


def no_likelihood(name: str) -> InputError:
    """What is said where a density is needed, of a family of that name."""
    return InputError(
        f"no likelihood is known: {name} gives draws of the learned posterior, by sample, and their density, by the "
        "sampler's log_prob, but neither weights nor evidence. Amortised(prior, simulate, log_likelihood) has these."
    )


def _simulated(
    unknowns: Unknowns, simulate: Callable[[Any], Tensor], n: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Parameters and data, with shapes (n, D) and (n, C); without a generator, others at every call.

    Simulations that failed are left out, and others are there twice: given finite data, posteriors stay the same.
    """
    with torch.random.fork_rng(devices=[], enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator, device=generator.device)))
        x = unknowns.sample(n)
        try:
            data = simulate(unknowns.values(x))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"simulate failed for {n} draws at once, with {unknowns.said_of(n)}: {type(error).__name__}: {error}."
            ) from error
    if not isinstance(data, Tensor) or data.ndim != 2 or len(data) != n:
        shown = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
        wrapped = "" if isinstance(data, Tensor) else " Wrap what it returns in torch.as_tensor."
        raise InputError(f"simulate must return a tensor with shape (n, C), here n = {n}, got {shown}.{wrapped}")
    is_known = data.isfinite().all(-1)
    rows = rows_of_usable(is_known)
    if rows is None:
        raise InputError(f"simulate must return finite data; all of {n} simulations have NaN or infinity.")
    if not is_known.all():
        warnings.warn(FAILED, stacklevel=2)
    return x[rows], data[rows]
