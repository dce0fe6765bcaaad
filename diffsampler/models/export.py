"""A posterior for ArviZ and for pandas, which are imported here alone."""

from typing import Any

import torch
from torch import Tensor

from diffsampler.errors import InputError
from diffsampler.log_z import LogZEstimate
from diffsampler.models.named_target import NamedTarget, Values, naming
from diffsampler.models.names import labels_of
from diffsampler.models.summary import entries
from diffsampler.optional import import_extra
from diffsampler.target import Target

RESERVED = {"chain", "draw"}


def to_arviz(target: Target, values: Values, x: Tensor, log_weight: Tensor, estimate: LogZEstimate) -> Any:
    """As `Posterior.to_arviz`.

    Arguments:
        target: whose draws these are.
        values: by name, with shapes (n, *shape).
        x: the same as the target takes them, with shape (n, D).
        log_weight: of the draws that they were chosen from, with shape (n).
        estimate: of log Z.

    Raises:
        InputError: if a parameter or a dimension is called as one of ArviZ's own.
    """
    base = import_extra("arviz_base", "to_arviz", "posterior")
    log_prob = target.log_prob(x.double()).detach().double()
    stats = {"lp": log_prob, "energy": -log_prob, "log_weight": log_weight}
    groups: dict[str, dict[str, Any]] = {
        "posterior": {name: _chain(value) for name, value in values.items()},
        "sample_stats": {name: _chain(value) for name, value in stats.items()},
    }
    dims, coords = {}, {}
    named = naming(target)
    if named is not None:
        dims, coords = dict(named.dims), dict(named.coords)
        _check_names(values, named)
        terms = named.log_likelihoods(x)
        if isinstance(terms, Tensor):
            name = "data" if "data" not in values else "log_likelihood"
            if names := named.dims_of_terms(tuple(terms.shape[1:])):
                dims[name] = names
            terms = {name: terms}
        if taken := RESERVED & {*values, *(one for names in dims.values() for one in names)}:
            raise InputError(f"ArviZ has dimensions called {' and '.join(sorted(taken))} already: name them otherwise.")
        if terms is not None:
            groups["log_likelihood"] = {name: _chain(value) for name, value in terms.items()}
        if observed := named.observed_data:
            groups["observed_data"] = {name: torch.as_tensor(value).cpu().numpy() for name, value in observed.items()}
    evidence = {"log_evidence": estimate.log_z, "log_evidence_low": estimate.low, "log_evidence_high": estimate.high}
    attrs = {
        "posterior": {"inference_library": "diffsampler"},
        "sample_stats": {"khat": estimate.khat, **evidence, "num_distinct": len(x.unique(dim=0))},
    }
    return base.from_dict(groups, dims=dims, coords=coords, attrs=attrs)


def to_dataframe(target: Target, values: Values) -> Any:
    """As `Posterior.to_dataframe`."""
    pandas, labels = import_extra("pandas", "to_dataframe", "posterior"), labels_of(target)
    columns: dict[str, Any] = {}
    for name, value in values.items():
        flat = value.reshape(len(value), -1).cpu().numpy()
        columns |= dict(zip(entries(name, tuple(value.shape[1:]), labels.get(name, [])), flat.T, strict=True))
    return pandas.DataFrame(columns)


def _check_names(values: Values, target: NamedTarget) -> None:
    """Raise InputError where data are called as a parameter whose dimensions have names: ArviZ has one list of them."""
    for name in values.keys() & target.observed_data.keys() & target.dims.keys():
        if tuple(values[name].shape[1:]) != tuple(target.observed_data[name].shape):
            raise InputError(
                f"data {name} have another shape than parameter {name}, whose dims ArviZ would give to both: call one "
                "of them otherwise."
            )


def _chain(value: Tensor) -> Any:
    return value.detach().cpu().numpy()[None]
