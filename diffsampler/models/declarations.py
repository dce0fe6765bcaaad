"""What a model declares: its parameters, and the names of their dimensions."""

from collections.abc import Mapping
from typing import Any

from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from diffsampler.errors import InputError, in_one_line
from diffsampler.models.parameters import Parameter
from diffsampler.models.supports import support_of


def read_parameters(
    parameters: Mapping[str, Parameter | Constraint] | None, prior: Mapping[str, Distribution] | None
) -> dict[str, Parameter]:
    """All by name; of what a prior alone says, within its support."""
    for called, given, example in (("prior", prior, "Normal(0.0, 1.0)"), ("parameters", parameters, "real()")):
        if given is not None and not isinstance(given, Mapping):
            raise InputError(
                f'{called} must be a dictionary by name, such as {{"mu": {example}}}, got {in_one_line(given)[:80]}.'
            )
    found: dict[str, Parameter] = {}
    for name, prior_of_it in (prior or {}).items():
        if not isinstance(prior_of_it, Distribution):
            way = ": where it depends on other parameters, write log_joint" if callable(prior_of_it) else ""
            raise InputError(
                f"prior of {name} must be a torch.distributions object, got {in_one_line(prior_of_it)}{way}."
            )
        if name not in (parameters or {}):
            with _naming(name):
                found[name] = Parameter.of(prior_of_it)
    for name, given in (parameters or {}).items():
        if prior is not None and name not in prior:
            raise InputError(f"prior must be given for all parameters, but {name} has none.")
        with _naming(name):
            one = given if isinstance(given, Parameter) else Parameter(given)
            if prior is not None:
                _check_prior(prior[name], one)
        found[name] = one
    if prior is not None:
        found = {name: found[name] for name in prior}
    if not found:
        raise InputError('ModelTarget needs parameters, such as {"mu": real(), "tau": positive()}.')
    return found


def _check_prior(prior: Distribution, parameter: Parameter) -> None:
    """Raise InputError where a prior is of other values than those of a parameter that is given beside it."""
    shape = tuple(prior.batch_shape + prior.event_shape)
    if shape != parameter.shape:
        raise InputError(f"it has the shape {parameter.shape}, its prior {shape}.")
    try:
        is_discrete = support_of(prior).is_discrete
    except (InputError, NotImplementedError):  # which is why the parameter is given
        return
    if is_discrete:
        Parameter.of(prior)


class _naming:
    """Within, an InputError says which parameter it is of."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, InputError):
            raise InputError(f"Parameter {self.name}: {error}") from error


def check_labels(
    shapes: Mapping[str, tuple[int, ...]], dims: Mapping[str, list[str]], coords: Mapping[str, list[Any]]
) -> None:
    """Raise InputError where names of dimensions, or labels along them, do not fit the parameters and data."""
    for name, names in dims.items():
        if name not in shapes:
            raise InputError(f"dims are of {name}, which is no parameter and no data; there are {', '.join(shapes)}.")
        shape = shapes[name]
        if len(names) != len(shape) or not all(isinstance(one, str) for one in names):
            raise InputError(f"dims of {name} must be {len(shape)} names, of its shape {shape}, got {names!r}.")
        for one, size in zip(names, shape, strict=True):
            if one in coords and len(coords[one]) != size:
                raise InputError(f"coords of {one} must be {size} labels, for {name}, got {len(coords[one])}.")
