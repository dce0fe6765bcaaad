"""What a model declares: its parameters, and the names of their dimensions."""

from collections.abc import Mapping
from typing import Any

from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from diffsampler.errors import InputError
from diffsampler.models.parameters import Parameter


def read_parameters(
    parameters: Mapping[str, Parameter | Constraint] | None, prior: Mapping[str, Distribution] | None
) -> dict[str, Parameter]:
    """All by name; of what a prior alone says, within its support."""
    found: dict[str, Parameter] = {}
    for name, prior_of_it in (prior or {}).items():
        if not isinstance(prior_of_it, Distribution):
            raise InputError(f"prior of {name} must be a torch.distributions object, got {prior_of_it!r}.")
        with _naming(name):
            found[name] = Parameter.of(prior_of_it)
    for name, given in (parameters or {}).items():
        if prior is not None and name not in prior:
            raise InputError(f"prior must be given for all parameters, but {name} has none.")
        with _naming(name):
            one = given if isinstance(given, Parameter) else Parameter(given)
        if name in found and found[name].shape != one.shape:
            raise InputError(f"parameter {name} has the shape {one.shape}, its prior {found[name].shape}.")
        found[name] = one
    if not found:
        raise InputError('ModelTarget needs parameters, such as {"mu": real(), "tau": positive()}.')
    return found


class _naming:
    """Within, an InputError says which parameter it is of."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, InputError):
            raise InputError(f"Parameter {self.name}: {error}") from error


def check_labels(
    declared: Mapping[str, Parameter], dims: Mapping[str, list[str]], coords: Mapping[str, list[Any]]
) -> None:
    """Raise InputError where names of dimensions, or labels along them, do not fit the parameters."""
    for name, names in dims.items():
        if name not in declared:
            raise InputError(f"dims are of {name}, which is no parameter; there are {', '.join(declared)}.")
        shape = declared[name].shape
        if len(names) != len(shape) or not all(isinstance(one, str) for one in names):
            raise InputError(f"dims of {name} must be {len(shape)} names, of its shape {shape}, got {names!r}.")
        for one, size in zip(names, shape, strict=True):
            if one in coords and len(coords[one]) != size:
                raise InputError(f"coords of {one} must be {size} labels, for {name}, got {len(coords[one])}.")
