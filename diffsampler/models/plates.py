"""Names of dimensions by the plates of Pyro and NumPyro."""

from collections.abc import Mapping
from typing import Any


def dims_of_plates(sites: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The names of the dimensions of sites whose batch dimensions all belong to plates.

    Arguments:
        sites: of a trace, by name, sampled or deterministic.
    """
    found = {}
    for name, site in sites.items():
        plates = {frame.dim: frame.name for frame in site.get("cond_indep_stack", ()) if frame.dim is not None}
        # A deterministic site has a value alone: it has names if all of its dimensions do.
        shape = getattr(site.get("fn"), "batch_shape", None)
        along = range(-len(site["value"].shape if shape is None else shape), 0)
        if plates and all(dim in plates for dim in along):
            found[name] = [plates[dim] for dim in along]
    return found
