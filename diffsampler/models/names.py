"""What the values of a target are called."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffsampler.models.named_target import Values, naming
from diffsampler.models.summary import HDI_PROB, Summary, entries, summarise
from diffsampler.target import Target


def values_of(target: Target, x: Tensor) -> Values:
    """Values by name, float64, at points x of a target, with shape (n, D); "x" where they have no names."""
    named = naming(target)
    return {"x": x.double()} if named is None else named.constrain(x.double())


def labels_of(target: Target) -> Mapping[str, list[list[Any]]]:
    """The labels along each dimension of parameters whose dimensions have them, by name."""
    named = naming(target)
    if named is None:
        return {}
    return {name: [named.coords.get(dim, []) for dim in dims] for name, dims in named.dims.items()}


def names_of_free(name: str, shape: tuple[int, ...], is_value: bool) -> list[str]:
    """What the free numbers of a parameter are called.

    Arguments:
        name: of the parameter.
        shape: of the free numbers.
        is_value: whether they are its values, or the name is their own.
    """
    labels = list(entries(name, shape, []))
    return labels if is_value else [f"the free number of {label}" for label in labels]


def summary_of(target: Target, x: Tensor, log_weight: Tensor) -> Summary | None:
    """The table of weighted draws x, with shape (n, D), where a target's values have names; else None."""
    if naming(target) is None:
        return None
    return summarise(values_of(target, x), log_weight, HDI_PROB, labels_of(target))
