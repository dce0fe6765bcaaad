"""Parameters from the prior, and data that a model makes of them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from diffsampler.errors import InputError, in_one_line
from diffsampler.fingerprint import sums_of
from diffsampler.models import ModelTarget
from diffsampler.models.distributions import in_float64
from diffsampler.models.named_target import Values
from diffsampler.streams import new_generator

Model = Callable[[Values], Distribution | Mapping[str, Distribution]]


def seed_of(seed: int, k: int, stream: str = "calibrate fit") -> int:
    """Of the k-th data set, for torch's global generator and for `fit`."""
    return new_generator(stream, seed, step=k).initial_seed() % 2**31


def simulated(model: Model, prior: Mapping[str, Distribution], seed: int, k: int) -> tuple[Values, Any]:
    """Parameters, each with shape (1, *shape), and data that the model makes of them."""
    with torch.random.fork_rng(), in_float64():  # torch's distributions take no generator
        torch.manual_seed(seed_of(seed, k, "calibrate data"))
        try:
            truth = {name: each.sample((1,)) for name, each in prior.items()}
        except NotImplementedError as error:
            raise InputError("calibrate draws from the prior: all of its distributions must have sample.") from error
        try:
            found = model(truth)
        except Exception as error:
            shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in truth.items())
            raise InputError(
                f"model fails at values of shapes {shapes}: {type(error).__name__}: {' '.join(str(error).split()):.200}"
            ) from error
        for one in found.values() if isinstance(found, Mapping) else [found]:
            if not hasattr(one, "sample") or not hasattr(one, "log_prob"):
                raise InputError(
                    f"model must return the distribution of the data, of torch.distributions, got {type(one).__name__}."
                )
        try:
            if isinstance(found, Mapping):
                return truth, {name: each.sample()[0] for name, each in found.items()}
            return truth, found.sample()[0]
        except RuntimeError as error:
            drawn = ", ".join(f"{name} {in_one_line(value[0].tolist()):.60}" for name, value in truth.items())
            raise InputError(
                f"model makes a distribution of the data that has no draws, at {drawn} of the prior: "
                f"{' '.join(str(error).split()):.200}. Does the prior allow values that the model does not?"
            ) from error


def likelihood_of(model: Model) -> Callable[[Values, Any], Tensor]:
    """As `ModelTarget` takes it."""

    def log_likelihood(values: Values, data: Any) -> Tensor:
        found = model(values)
        if not isinstance(found, Mapping):
            return found.log_prob(data)
        terms = [each.log_prob(data[name]) for name, each in found.items()]
        return torch.cat([term.reshape(len(term), -1) for term in terms], -1)

    return log_likelihood


def posterior_target(model: Model, prior: Mapping[str, Distribution], data: Any) -> ModelTarget:
    """The posterior of data."""
    return ModelTarget(prior=prior, log_likelihood=likelihood_of(model), data=data)


def first_of(model: Model, prior: Mapping[str, Distribution], seed: int) -> str:
    """What tells models apart, in words that are alike on all machines: the first data, and their log-density.

    Raises:
        InputError: if there are none, which is no matter of one data set among many.
    """
    truth, data = simulated(model, prior, seed, 0)
    target = posterior_target(model, prior, data)
    sums = "; ".join(f"{name} of sums {sums_of(value)}" for name, value in target.observed_data.items())
    return f"{sums}; log-density {float(target.log_prob(target.free(truth))):.9g}"
