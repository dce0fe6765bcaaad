"""A Pyro model."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from diffsampler.energies import TorchBoltzmannWeight
from diffsampler.errors import check_flag
from diffsampler.models.distributions import in_float64
from diffsampler.models.foreign_model import check_call, check_function, check_latent, check_observed, seed_of
from diffsampler.models.named_target import NamedTarget, Values
from diffsampler.models.names import names_of_free
from diffsampler.models.plates import dims_of_plates
from diffsampler.models.transforms import BY_VECTOR
from diffsampler.optional import import_extra
from diffsampler.target import check_log_z


class PyroTarget(NamedTarget):
    """The posterior of a Pyro model on its unconstrained space, with its Jacobian and all constants.

    Whole batches, by `torch.vmap`, in float64. A model that it cannot follow, such as one that decides by values, is
    asked one point at a time, with a warning; points at which it then raises are of zero density, and counted.

    References:
        Pyro: Deep universal probabilistic programming, Bingham et al., 2019, arXiv:1810.09538.

    Arguments:
        model: a function with Pyro's primitives, and without discrete parameters.
        args: what it is called with; tensors of numbers become float64.
        kwargs: what it is called with by name.
        deterministics: whether `constrain` gives these too.
        dims: for tables and ArviZ, the names of a site's dimensions, by its name; by default those of its plates.
        coords: the labels along a dimension, by its name.
        log_z: the log evidence, where it is known exactly.

    Attributes:
        sites: the shapes of free numbers of each parameter, by its name, in the order of the model.

    Raises:
        InputError: if Pyro is missing, or a parameter is discrete.
        Exception: what the model raises.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        deterministics: bool = True,
        dims: Mapping[str, list[str]] | None = None,
        coords: Mapping[str, list[Any]] | None = None,
        log_z: float | None = None,
    ) -> None:
        import_extra("pyro", type(self).__name__, "pyro")
        check_function(type(self).__name__, model)
        check_call(type(self).__name__, model, args, kwargs)
        gives_deterministics = check_flag("deterministics", deterministics)
        args, kwargs = _doubled(tuple(args)), _doubled(dict(kwargs or {}))
        found = _start(model, args, kwargs)
        sites = {name: site for name, site in found.items() if not site["is_observed"]}
        check_latent(type(self).__name__, sites, "MixtureSameFamily")
        check_observed(type(self).__name__, {name: site for name, site in found.items() if site["is_observed"]})
        shapes = {name: tuple(_map_onto(site["fn"].support).inv(site["value"]).shape) for name, site in sites.items()}
        super().__init__(sum(map(_size, shapes.values())), {**dims_of_plates(found), **(dims or {})}, coords)
        self.model, self.args, self.kwargs, self.sites = model, args, kwargs, shapes
        self.deterministics = gives_deterministics
        self._reals = [name for name, site in sites.items() if _of_vectors(site["fn"].support) is constraints.real]
        self.log_z = check_log_z(type(self).__name__, log_z)
        self._is_vectorised = self._can_vectorise()
        self._weight = _Weight(self._minus_log_joint, batched=self._is_vectorised)

    def log_prob(self, x: Tensor) -> Tensor:
        with _quietly():
            return self._weight(x.double())

    @torch.no_grad()
    def constrain(self, x: Tensor) -> Values:
        def values(row: Tensor) -> Values:
            found, trace = self._trace(row)
            others = {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
            if self.deterministics:
                found |= {name: site["value"] for name, site in others.items() if _is_deterministic(site)}
            return found

        return self._of_all(values, x)

    @torch.no_grad()
    def log_likelihoods(self, x: Tensor) -> Values | None:
        def terms(row: Tensor) -> Values:
            observed = {name: site for name, site in _sampled(self._trace(row)[1]).items() if site["is_observed"]}
            return {name: site["fn"].log_prob(site["value"]) for name, site in observed.items()}

        return self._of_all(terms, x) or None

    @property
    def coordinate_names(self) -> list[str]:
        return [one for name, shape in self.sites.items() for one in names_of_free(name, shape, name in self._reals)]

    @property
    def observed_data(self) -> Values:
        found = _start(self.model, self.args, self.kwargs)
        return {name: site["value"] for name, site in found.items() if site["is_observed"]}

    def starting_points(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draws of the prior as free numbers, float64, with shape (n, D); None where it has no draws."""
        from pyro import poutine

        with torch.random.fork_rng(), _quietly(), torch.no_grad():  # Pyro takes no generator
            torch.manual_seed(seed_of(generator))
            draws = []
            for _ in range(n):
                try:
                    found = _sampled(poutine.trace(self.model).get_trace(*self.args, **self.kwargs))
                except NotImplementedError:  # an improper prior
                    return None
                free = (_map_onto(found[name]["fn"].support).inv(found[name]["value"]) for name in self.sites)
                draws.append(torch.cat([each.reshape(-1) for each in free]))
        x = torch.stack(draws)
        return x[x.isfinite().all(-1)]

    def _trace(self, row: Tensor) -> tuple[Values, Any]:
        """Values of one point, with shape (D), and the trace of the model with these."""
        from pyro import poutine
        from pyro.infer.autoguide.initialization import InitMessenger

        free, start = {}, 0
        for name, shape in self.sites.items():
            free[name] = row[start : start + _size(shape)].reshape(shape)
            start += _size(shape)
        values: Values = {}
        has_gradients = torch.is_grad_enabled()

        def value_of(site: dict[str, Any]) -> Tensor:
            name = site["name"]
            with torch.set_grad_enabled(has_gradients):  # Pyro asks for it without
                values[name] = _map_onto(site["fn"].support)(free[name])
            return values[name]

        trace = poutine.trace(InitMessenger(value_of)(self.model)).get_trace(*self.args, **self.kwargs)
        for name in self.sites:
            trace.nodes[name]["free"] = free[name]
        return values, trace

    def _minus_log_joint(self, x: Tensor) -> Tensor:
        """With shape (n) for free numbers with shape (n, D), or of one point."""
        return torch.vmap(self._of_one, randomness="different")(x) if x.ndim > 1 else self._of_one(x)

    def _of_one(self, row: Tensor) -> Tensor:
        values, trace = self._trace(row)
        log_joint = trace.log_prob_sum()
        for name, value in values.items():
            site = trace.nodes[name]
            log_joint = log_joint + _map_onto(site["fn"].support).log_abs_det_jacobian(site["free"], value).sum()
        return -log_joint

    def _can_vectorise(self) -> bool:
        x = 0.1 * torch.randn(
            2, self.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu"
        )
        with _quietly():
            apart = torch.stack([self._minus_log_joint(row) for row in x])
            try:
                together = self._minus_log_joint(x)
                if torch.allclose(apart, together, equal_nan=True):
                    return True
                reason = "values differ"
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
        warnings.warn(
            f"torch.vmap cannot follow this model, which is asked one point at a time. It says: {reason}", stacklevel=3
        )
        return False

    def _of_all(self, function: Callable[[Tensor], Values], x: Tensor) -> Values:
        """Values by name, with shapes (*, *shape), of a function of one point."""
        rows = x.detach().double().reshape(-1, x.shape[-1])
        with _quietly():
            if self._is_vectorised:
                found = torch.vmap(function, randomness="different")(rows)
            else:
                each = [function(row) for row in rows]
                found = {name: torch.stack([values[name] for values in each]) for name in each[0]}
        return {name: value.double().reshape(*x.shape[:-1], *value.shape[1:]) for name, value in found.items()}


def _map_onto(support: Constraint) -> Transform:
    """Pyro's own map, or one that does not stop where rounding does."""
    support = _of_vectors(support)
    return BY_VECTOR[type(support)]() if type(support) in BY_VECTOR else biject_to(support)


def _of_vectors(support: Constraint) -> Constraint:
    """Of single numbers, or of vectors and matrices that are more than so many numbers."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


class _Weight(TorchBoltzmannWeight):
    asked = "The log-density at a point"


@contextmanager
def _quietly() -> Iterator[None]:
    """Within, Pyro and torch do not check values, and what is made of plain numbers is float64."""
    import pyro

    with pyro.validation_enabled(False), in_float64():
        yield


def _start(model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sites of one trace, by name, at a point near the origin."""
    from pyro import poutine
    from pyro.infer.autoguide.initialization import InitMessenger, init_to_uniform

    def value_of(site: dict[str, Any]) -> Tensor:
        return site["fn"].sample() if site["fn"].support.is_discrete else init_to_uniform(site)

    with torch.random.fork_rng(), _quietly(), torch.no_grad():
        torch.manual_seed(0)
        return _sampled(poutine.trace(InitMessenger(value_of)(model)).get_trace(*args, **kwargs))


def _sampled(trace: Any) -> dict[str, dict[str, Any]]:
    """Parameters and what is observed, by name."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not _is_deterministic(site) and type(site["fn"]).__name__ != "_Subsample"
    }


def _is_deterministic(site: Mapping[str, Any]) -> bool:
    return bool(site["infer"] and site["infer"].get("_deterministic"))


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _doubled(given: Any) -> Any:
    """Tensors of numbers in float64, within tuples, lists and dictionaries too."""
    if isinstance(given, Tensor):
        return given.detach().double() if given.is_floating_point() else given
    if isinstance(given, dict):
        return {name: _doubled(value) for name, value in given.items()}
    return type(given)(map(_doubled, given)) if type(given) in (list, tuple) else given
