"""A posterior for ArviZ and for pandas, which are imported here alone."""

from importlib import import_module
from typing import Any

import torch

from diffsampler.errors import InputError
from diffsampler.models.model_target import ModelTarget
from diffsampler.models.posterior import Posterior, labels_of
from diffsampler.models.summary import entries


def to_arviz(posterior: Posterior) -> Any:
    """As `Posterior.to_arviz`."""
    base = _imported("arviz_base", "to_arviz")
    target, x = posterior.target, posterior.x[posterior.rows].double()
    log_prob = target.log_prob(x).detach().double()
    groups = {
        "posterior": {name: _chain(value) for name, value in posterior.values.items()},
        "sample_stats": {
            "lp": _chain(log_prob),
            "energy": _chain(-log_prob),
            "log_weight": _chain(posterior.log_weight[posterior.rows]),
        },
    }
    dims, coords = {}, {}
    if isinstance(target, ModelTarget):
        dims, coords = dict(target.dims), dict(target.coords)
        log_likelihood = target.log_likelihoods(x)
        if log_likelihood is not None:
            groups["log_likelihood"] = {"data": _chain(log_likelihood)}
        if target.data is not None:
            groups["observed_data"] = {name: value.cpu().numpy() for name, value in target.data.given.items()}
    estimate = posterior.estimate
    attributes = {
        "khat": estimate.khat,
        "log_evidence": estimate.log_z,
        "log_evidence_low": estimate.low,
        "log_evidence_high": estimate.high,
        "num_distinct": posterior.num_distinct,
    }
    attrs = {"sample_stats": attributes, "posterior": {"inference_library": "diffsampler"}}
    return base.from_dict(groups, dims=dims, coords=coords, attrs=attrs)


def to_dataframe(posterior: Posterior) -> Any:
    """As `Posterior.to_dataframe`."""
    pandas, labels = _imported("pandas", "to_dataframe"), labels_of(posterior.target)
    columns = {}
    for name, value in posterior.values.items():
        flat = value.reshape(len(value), -1).cpu().numpy()
        columns |= dict(zip(entries(name, tuple(value.shape[1:]), labels.get(name, [])), flat.T, strict=True))
    return pandas.DataFrame(columns)


def _chain(value: torch.Tensor) -> Any:
    return value.detach().cpu().numpy()[None]


def _imported(module: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{what} needs {module.replace('_', '-')}, which is not installed: pip install 'diffsampler[posterior]'."
        ) from error
