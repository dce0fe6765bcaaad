"""A NumPyro model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsampler.energies import EnergyOfMany
from diffsampler.energies.many import BATCH_SIZE
from diffsampler.errors import check_flag
from diffsampler.models.foreign_model import (
    ForeignModel,
    check_call,
    check_function,
    check_latent,
    check_observed,
    rows_of,
    seed_of,
    values_like,
)
from diffsampler.models.named_target import Values
from diffsampler.models.names import names_of_free
from diffsampler.models.plates import dims_of_plates
from diffsampler.optional import import_extra

SMALLEST_BATCH = 32


class NumPyroTarget(ForeignModel):
    """The posterior of a NumPyro model on its unconstrained space, with its Jacobian and all constants.

    JAX compiles log-density and score for whole batches, in float64, whatever its own setting is. Batches are filled up
    to a power of two, so that it compiles a few times only.

    References:
        Composable effects for flexible and accelerated probabilistic programming in NumPyro, Phan et al., 2019,
        arXiv:1912.11554.

    Arguments:
        model: a function with NumPyro's primitives, and without discrete parameters.
        args: what it is called with; arrays of numbers become float64.
        kwargs: what it is called with by name.
        deterministics: whether `constrain` gives these too.
        dims: for tables and ArviZ, the names of a site's dimensions, by its name; by default those of its plates.
        coords: the labels along a dimension, by its name.
        log_z: the log evidence, where it is known exactly.

    Attributes:
        sites: the shapes of free numbers of each parameter, by its name, in the order of the model.

    Raises:
        InputError: if NumPyro is missing, or a parameter is discrete.
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
        import_extra("numpyro", type(self).__name__, "numpyro")
        check_function(type(self).__name__, model)
        check_call(type(self).__name__, model, args, kwargs)
        gives_deterministics = check_flag("deterministics", deterministics)
        density = _Density(model, tuple(args), dict(kwargs or {}))
        super().__init__(density, density.num_free, 0, {**density.dims, **(dims or {})}, coords, log_z)
        self.deterministics, self.sites = gives_deterministics, density.shapes

    def constrain(self, x: Tensor) -> Values:
        return values_like(x, self.fn.energy.constrain(rows_of(x), self.deterministics))

    def log_likelihoods(self, x: Tensor) -> Values | None:
        found = self.fn.energy.log_likelihoods(rows_of(x))
        return values_like(x, found) if found else None

    @property
    def coordinate_names(self) -> list[str]:
        reals = self.fn.energy.reals
        return [one for name, shape in self.sites.items() for one in names_of_free(name, shape, name in reals)]

    @property
    def observed_data(self) -> dict[str, np.ndarray]:
        return self.fn.energy.observed

    def starting_points(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draws of the prior as free numbers, float64, with shape (n, D); None where it has no draws."""
        try:
            x = torch.from_numpy(self.fn.energy.prior_draws(n, seed_of(generator)))
        except NotImplementedError:  # an improper prior
            return None
        return x[x.isfinite().all(-1)]


class _Density(EnergyOfMany):
    """Minus the log-density and the score, and what else JAX computes of free numbers in batches."""

    def __init__(self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        import jax
        from numpyro import handlers
        from numpyro.distributions import constraints
        from numpyro.infer import init_to_uniform
        from numpyro.infer.util import unconstrain_fn

        with _float64():
            self.args, self.kwargs = jax.tree_util.tree_map(_double, (args, kwargs))
            self.unseeded, self.model = model, handlers.seed(model, jax.random.PRNGKey(0))
            tried = handlers.substitute(self.model, substitute_fn=init_to_uniform())
            trace = handlers.trace(tried).get_trace(*self.args, **self.kwargs)
            sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
            latent = {name: site for name, site in sites.items() if not site["is_observed"]}
            check_latent("NumPyroTarget", latent, "numpyro.distributions.MixtureSameFamily")
            check_observed("NumPyroTarget", {name: site for name, site in sites.items() if site["is_observed"]})
            values = {name: site["value"] for name, site in latent.items()}
            free = unconstrain_fn(tried, self.args, self.kwargs, values)
        self.shapes = {name: tuple(np.shape(free[name])) for name in latent}
        self.num_free = sum(int(np.prod(shape)) for shape in self.shapes.values())
        supports = {name: _of_vectors(site["fn"].support) for name, site in latent.items()}
        self.simplexes = [name for name, support in supports.items() if support is constraints.simplex]
        self.reals = [name for name, support in supports.items() if support is constraints.real]
        self.observed = {name: np.asarray(site["value"]) for name, site in sites.items() if site["is_observed"]}
        self.deterministics = [name for name, site in trace.items() if site["type"] == "deterministic"]
        self.dims = dims_of_plates(
            {name: site for name, site in trace.items() if site["type"] in ("sample", "deterministic")}
        )
        self._functions: dict[str, Callable[[Any], Any]] = {}

    def evaluate_many(self, x: np.ndarray, with_forces: bool) -> tuple[np.ndarray, np.ndarray | None]:
        if with_forces:
            energy, gradient = self._asked("value_and_grad", x)
            return energy, -gradient
        return self._asked("value", x), None

    def constrain(self, x: np.ndarray, deterministics: bool) -> dict[str, np.ndarray]:
        """Values by name, with shapes (n, *shape)."""
        found = self._asked("constrain", x)
        # JAX sorts names; these are the model's own order.
        return {name: found[name] for name in [*self.shapes, *(self.deterministics if deterministics else [])]}

    def log_likelihoods(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Of each observation by name, with shapes (n, *shape)."""
        return self._asked("log_likelihoods", x)

    def prior_draws(self, n: int, seed: int) -> np.ndarray:
        """Free numbers, with shape (n, D)."""
        import jax
        from numpyro import handlers
        from numpyro.infer.util import unconstrain_fn

        def draw(key: Any) -> Any:
            model = handlers.seed(self.unseeded, key)
            trace = handlers.trace(model).get_trace(*self.args, **self.kwargs)
            free = unconstrain_fn(model, self.args, self.kwargs, {name: trace[name]["value"] for name in self.shapes})
            return jax.numpy.concatenate([free[name].reshape(-1) for name in self.shapes])

        with _float64():
            return np.array(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.PRNGKey(seed), n)), dtype=np.float64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_functions": {}}

    def _asked(self, name: str, x: np.ndarray) -> Any:
        """What a function says of all rows, a batch at a time."""
        import jax

        with _float64():
            if name not in self._functions:
                self._functions[name] = jax.jit(jax.vmap(self._function(name)))
            parts = [self._of_batch(name, x[k : k + BATCH_SIZE]) for k in range(0, len(x), BATCH_SIZE)]
            return jax.tree_util.tree_map(lambda *each: np.concatenate(each), *parts)

    def _of_batch(self, name: str, x: np.ndarray) -> Any:
        import jax

        size = max(SMALLEST_BATCH, 1 << (len(x) - 1).bit_length())
        filled = np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])
        return jax.tree_util.tree_map(lambda each: np.asarray(each)[: len(x)], self._functions[name](filled))

    def _function(self, name: str) -> Callable[[Any], Any]:
        """Of one point."""
        import jax
        from numpyro.infer.util import constrain_fn, log_likelihood, potential_energy

        def value(x: Any) -> Any:
            free = self._sites(x)
            energy = potential_energy(self.model, self.args, self.kwargs, free)
            return energy - sum(_beyond_rounding(free[name]) for name in self.simplexes)

        def constrain(x: Any) -> Any:
            return constrain_fn(self.model, self.args, self.kwargs, self._sites(x), return_deterministic=True)

        def log_likelihoods(x: Any) -> Any:
            values = constrain_fn(self.model, self.args, self.kwargs, self._sites(x))
            return log_likelihood(self.model, values, *self.args, batch_ndims=0, **self.kwargs)

        known = {"value": value, "value_and_grad": jax.value_and_grad(value), "constrain": constrain}
        return {**known, "log_likelihoods": log_likelihoods}[name]

    def _sites(self, x: Any) -> dict[str, Any]:
        """Free numbers of one point by name."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            found[name] = x[start : start + size].reshape(shape)
            start += size
        return found


def _of_vectors(support: Any) -> Any:
    """Of single numbers, or of vectors and matrices that are more than so many numbers."""
    from numpyro.distributions import constraints

    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _beyond_rounding(free: Any) -> Any:
    """What the log of the Jacobian of NumPyro's stick breaking lacks, for simplexes with free numbers (*, K - 1).

    Where rounding ends so does it, and densities then end nowhere; elsewhere this is zero.
    """
    from jax import nn, numpy
    from numpyro.distributions.transforms import StickBreakingTransform

    shifted = free - numpy.log(numpy.arange(free.shape[-1], 0, -1))
    log_det = nn.log_sigmoid(shifted) + numpy.cumsum(nn.log_sigmoid(-shifted), axis=-1)
    transform = StickBreakingTransform()
    return log_det.sum() - transform.log_abs_det_jacobian(free, transform(free)).sum()


def _float64() -> Any:
    """Within, JAX computes in float64, whatever the user's setting is."""
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # until 0.8

    return enable_x64()


def _double(given: Any) -> Any:
    """Arrays of numbers in float64; others as they are."""
    is_array = hasattr(given, "dtype") and hasattr(given, "__array__")
    array = np.asarray(given) if is_array else None
    return array.astype(np.float64) if is_array and np.issubdtype(array.dtype, np.floating) else given
