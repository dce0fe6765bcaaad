"""A PyMC model."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsampler.energies import EnergyOfMany, EnergyOfOne
from diffsampler.errors import InputError, check_flag
from diffsampler.models.foreign_model import ForeignModel, rows_of, seed_of, values_like
from diffsampler.models.named_target import Values
from diffsampler.models.names import names_of_free
from diffsampler.optional import import_extra

UNVECTORISABLE = (NotImplementedError, ValueError, TypeError)


class PyMCTarget(ForeignModel):
    """The posterior of a PyMC model on the space of its value variables, with its Jacobian and all constants.

    PyTensor compiles log-density and score for whole batches, which takes some seconds. A model that it cannot
    vectorise is asked one point at a time, with a warning; `workers` then share the points.

    References:
        PyMC: A modern, and comprehensive probabilistic programming framework in Python, Abril-Pla et al., 2023,
        https://doi.org/10.7717/peerj-cs.1516.

    Arguments:
        model: a `pymc.Model` without discrete parameters; its potentials count, its data may be changed later.
        deterministics: whether `constrain` gives these too.
        workers: in how many processes to evaluate it, which stay; 0 for this one.
        dims: for tables and ArviZ, the names of a variable's dimensions, by its name; by default the model's.
        coords: the labels along a dimension, by its name; by default the model's.
        log_z: the log evidence, where it is known exactly.

    Attributes:
        model: the `pymc.Model`.

    Raises:
        InputError: if PyMC is missing, this is no model of it, or a parameter is discrete.
    """

    def __init__(
        self,
        model: Any,
        deterministics: bool = True,
        workers: int = 0,
        dims: Mapping[str, list[str]] | None = None,
        coords: Mapping[str, list[Any]] | None = None,
        log_z: float | None = None,
    ) -> None:
        pymc = import_extra("pymc", type(self).__name__, "pymc")
        if not isinstance(model, pymc.Model):
            raise InputError(f"model of PyMCTarget must be a pymc.Model, got {type(model).__name__}.")
        if discrete := [variable.name for variable in model.discrete_value_vars]:
            raise InputError(
                f"PyMCTarget takes no discrete parameters, and {', '.join(discrete)} is discrete: sum over its values "
                "in the model, as pymc.Mixture does."
            )
        if not model.free_RVs:
            raise InputError("PyMCTarget needs a model with parameters, and this one has none.")
        start = model.initial_point()
        num_free = sum(np.size(start[variable.name]) for variable in model.value_vars)
        of_model = {name: list(along) for name, along in model.named_vars_to_dims.items() if None not in along}
        labels = {name: list(each) for name, each in model.coords.items() if each is not None}
        super().__init__(
            _density(model), num_free, workers, {**of_model, **(dims or {})}, {**labels, **(coords or {})}, log_z
        )
        self.model, self.deterministics = model, check_flag("deterministics", deterministics)
        self._constrain: Callable[[np.ndarray], list[np.ndarray]] | None = None
        self._log_likelihoods: Callable[[np.ndarray], list[np.ndarray]] | None = None

    def constrain(self, x: Tensor) -> Values:
        variables = [*self.model.free_RVs, *(self.model.deterministics if self.deterministics else [])]
        if self._constrain is None:
            self._constrain = _function(self.model, self.model.replace_rvs_by_values(variables))
        values = self._constrain(rows_of(x))
        return values_like(x, {variable.name: value for variable, value in zip(variables, values, strict=True)})

    def log_likelihoods(self, x: Tensor) -> Values | None:
        observed = self.model.observed_RVs
        if not observed:
            return None
        if self._log_likelihoods is None:
            self._log_likelihoods = _function(self.model, self.model.logp(observed, sum=False, jacobian=False))
        values = self._log_likelihoods(rows_of(x))
        return values_like(x, {variable.name: value for variable, value in zip(observed, values, strict=True)})

    @property
    def coordinate_names(self) -> list[str]:
        start = self.model.initial_point()
        free = [variable.name for variable in self.model.value_vars]
        return [one for name in free for one in names_of_free(name, np.shape(start[name]), True)]

    @property
    def observed_data(self) -> dict[str, np.ndarray]:
        return {
            variable.name: np.asarray(self.model.rvs_to_values[variable].eval()) for variable in self.model.observed_RVs
        }

    def starting_points(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draws of the prior as free numbers, float64, with shape (n, D); None where it has no draws."""
        import pymc

        free = []
        for variable in self.model.free_RVs:
            transform = self.model.rvs_to_transforms[variable]
            free.append(variable if transform is None else transform.forward(variable, *variable.owner.inputs))
        try:
            draws = pymc.draw(free, draws=n, random_seed=seed_of(generator))
        except NotImplementedError:  # a flat prior
            return None
        x = torch.from_numpy(np.concatenate([np.reshape(draw, (n, -1)) for draw in draws], -1).astype(np.float64))
        return x[x.isfinite().all(-1)]


class _Vectorised(EnergyOfMany):
    def __init__(self, function: Callable[[np.ndarray], list[np.ndarray]], has_forces: bool) -> None:
        self.function, self.has_forces = function, has_forces

    def evaluate_many(self, x: np.ndarray, with_forces: bool) -> tuple[np.ndarray, np.ndarray | None]:
        found = self.function(x)
        return -found[0], found[1] if with_forces else None


class _OneByOne(EnergyOfOne):
    def __init__(self, function: Callable[[np.ndarray], list[np.ndarray]], has_forces: bool) -> None:
        self.function, self.has_forces = function, has_forces

    def evaluate_one(self, x: np.ndarray, with_forces: bool) -> tuple[float, np.ndarray | None]:
        found = self.function(x)
        return -float(found[0]), found[1] if with_forces else None


def _density(model: Any) -> _Vectorised | _OneByOne:
    """Minus the log-density, and the score where PyTensor knows one."""
    from pytensor import tensor
    from pytensor.gradient import NullTypeGradError

    log_density, free = _joined(model, [model.logp()])
    try:
        outputs = [*log_density, tensor.grad(log_density[0], free)]
    except (NotImplementedError, NullTypeGradError):  # what a user wrote outside of PyTensor
        outputs = log_density
    try:
        return _Vectorised(_compiled(free, outputs, is_batched=True), len(outputs) > 1)
    except UNVECTORISABLE as error:
        warnings.warn(
            "PyTensor cannot vectorise this model, which is asked one point at a time: workers=... shares them. It "
            f"says: {' '.join(str(error).split())[:200]}",
            stacklevel=4,
        )
        return _OneByOne(_compiled(free, outputs, is_batched=False), len(outputs) > 1)


def _function(model: Any, outputs: Sequence[Any]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Outputs, with shapes (n, *shape), of free numbers with shape (n, D)."""
    outputs, free = _joined(model, outputs)
    try:
        return _compiled(free, outputs, is_batched=True)
    except UNVECTORISABLE:  # warned of when the density was compiled
        one = _compiled(free, outputs, is_batched=False)
        return lambda rows: [np.stack(values) for values in zip(*map(one, rows), strict=True)]


def _joined(model: Any, outputs: Sequence[Any]) -> tuple[list[Any], Any]:
    """The same outputs as functions of one vector, which holds all free numbers in the order of value_vars."""
    from pymc.logprob.utils import local_check_parameter_to_ninf_switch, local_remove_check_parameter
    from pymc.pytensorf import join_nonshared_inputs
    from pytensor.graph.fg import FunctionGraph
    from pytensor.graph.rewriting.basic import in2out

    found, free = join_nonshared_inputs(model.initial_point(), outputs=list(outputs), inputs=model.value_vars)
    # A parameter outside of its range is a density of zero. Vectorised, the check would be of all points together.
    graph = FunctionGraph(outputs=list(found), clone=False)
    in2out(local_check_parameter_to_ninf_switch if model.check_bounds else local_remove_check_parameter).rewrite(graph)
    return list(graph.outputs), free


def _compiled(free: Any, outputs: Sequence[Any], is_batched: bool) -> Callable[[np.ndarray], list[np.ndarray]]:
    from pymc.pytensorf import compile as compile_graph
    from pytensor import tensor
    from pytensor.graph.fg import FunctionGraph
    from pytensor.graph.replace import vectorize_graph
    from pytensor.scan.op import Scan

    many = tensor.matrix("x", dtype="float64") if is_batched else free
    if is_batched:
        outputs = vectorize_graph(list(outputs), {free: many})
        nodes = FunctionGraph(outputs=list(outputs), clone=False).apply_nodes
        # Repeated, a loop is slower than one by one, and compiling it changes the user's own.
        if any(isinstance(getattr(node.op, "core_op", None), Scan) for node in nodes):
            raise NotImplementedError("a loop (scan) is taken as it is")
    return compile_graph([many], list(outputs), on_unused_input="ignore", trust_input=True)
