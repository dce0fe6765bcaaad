"""The posterior of a model as a target: named parameters, each within its constraint."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from diffsampler.errors import InputError, check_flag
from diffsampler.models.data import Data, as_data
from diffsampler.models.declarations import check_labels, read_parameters
from diffsampler.models.distributions import in_double, in_float64
from diffsampler.models.named_target import NamedTarget, Values
from diffsampler.models.names import names_of_free
from diffsampler.models.observations import dims_of_terms
from diffsampler.models.parameters import Parameter
from diffsampler.models.read_values import ReadValues
from diffsampler.target import check_log_z

NUM_TRIED = 500


class ModelTarget(NamedTarget):
    """The density of a model's parameters, whose integral is the evidence p(data).

    Written as one function, the log of the joint density of parameters and data, or as priors and a likelihood. The
    library walks in free numbers x, with shape (*, D), which `constrain` maps onto values; `log_prob` carries the
    Jacobian, so that log Z is the integral over the values. Everything is computed in float64.

    Arguments:
        log_joint: maps a dictionary of values, each with shape (B, *shape), to log-densities, with shape (B); with
            `data`, it gets those as a second argument.
        parameters: by name, of `diffsampler.models`, such as `{"mu": real(), "tau": positive(), "w": simplex(3)}`; a
            constraint of `torch.distributions.constraints` is a parameter of one number.
        data: tensors, arrays or numbers by name, or a single one; whole numbers become int64, others float64.
        prior: instead of `log_joint`, a `torch.distributions` object for each parameter; what `parameters` leaves out
            lies within its support. The search then starts from draws of it too.
        log_likelihood: beside `prior`, what the data say: with shape (B), or (B, N) or more, a term for each
            observation, which are summed. Beside `log_joint`, these terms alone, for model comparison.
        batched: False for functions of the values of one draw, without B; they are mapped over draws by `torch.vmap`.
        dims: for tables and ArviZ, the names of a parameter's dimensions, by its name; of data too ("data", where these
            have no names), whose dimensions are those of terms of their shape.
        coords: the labels along a dimension, by its name.
        log_z: the log evidence, where it is known exactly.

    Attributes:
        declared: parameters by name.
        columns: which free numbers are a parameter's, by name.

    Raises:
        InputError: if parameters, data and functions do not fit together: functions are tried once, at two points.

    Example:
        >>> from torch.distributions import HalfCauchy, Normal
        >>> y = torch.tensor([28.0, 8, -3, 7])
        >>> target = ModelTarget(
        ...     prior={"mu": Normal(0.0, 5.0), "tau": HalfCauchy(5.0)},
        ...     log_likelihood=lambda p, y: Normal(p["mu"][:, None], p["tau"][:, None]).log_prob(y),
        ...     data=y,
        ... )
        >>> target.dim, list(target.constrain(torch.zeros(3, 2)))
        (2, ['mu', 'tau'])
    """

    def __init__(
        self,
        log_joint: Callable[..., Tensor] | None = None,
        parameters: Mapping[str, Parameter | Constraint] | None = None,
        data: Any = None,
        *,
        prior: Mapping[str, Distribution] | None = None,
        log_likelihood: Callable[..., Tensor] | None = None,
        batched: bool = True,
        dims: Mapping[str, list[str]] | None = None,
        coords: Mapping[str, list[Any]] | None = None,
        log_z: float | None = None,
    ) -> None:
        if (log_joint is None) == (prior is None):
            raise InputError("ModelTarget needs either log_joint and parameters, or prior and log_likelihood.")
        found = read_parameters(parameters, prior)
        super().__init__(sum(parameter.num_free for parameter in found.values()), dims, coords)
        self.declared, self.columns, start = found, {}, 0
        for name, parameter in found.items():
            self.columns[name] = slice(start, start + parameter.num_free)
            start += parameter.num_free
        self.limits = tuple(map(torch.cat, zip(*(parameter.limits() for parameter in found.values()), strict=True)))
        self.log_joint, self.log_likelihood = log_joint, log_likelihood
        self.prior = None if prior is None else {name: in_double(each) for name, each in prior.items()}
        self.batched = check_flag("batched", batched)
        self.log_z = check_log_z(type(self).__name__, log_z)
        self.data: Data | None = as_data(data)
        if prior is not None and data is not None and log_likelihood is None:
            raise InputError("ModelTarget has a prior and data, but no log_likelihood that reads them.")
        shapes = {} if self.data is None else self.data.shapes
        check_labels({**shapes, **{name: each.shape for name, each in found.items()}}, self.dims, self.coords)
        self._try()

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_prob_of(x.double().reshape(-1, self.dim)).reshape(x.shape[:-1])

    def constrain(self, x: Tensor) -> Values:
        """Values by name, each with shape (*, *shape), for free numbers with shape (*, D)."""
        return self._constrained(x)[0]

    def free(self, values: Mapping[str, Any]) -> Tensor:
        """The free numbers, with shape (*, D), that give these values.

        Raises:
            InputError: if a parameter is missing, unknown, of another shape, or not within its constraint.
        """
        if values.keys() != self.declared.keys():
            raise InputError(f"values must be of {', '.join(self.declared)}, got those of {', '.join(values)}.")
        parts = {}
        for name, parameter in self.declared.items():
            value = torch.as_tensor(values[name], dtype=torch.float64)
            if value.shape[value.ndim - len(parameter.shape) :] != torch.Size(parameter.shape):
                raise InputError(
                    f"values of {name} must have shape (*, {', '.join(map(str, parameter.shape))}), got "
                    f"{tuple(value.shape)}."
                )
            if not parameter.contains(value).all():
                raise InputError(f"values of {name} must be within {parameter}.")
            parts[name] = parameter.free(value)
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts.values()))
        return torch.cat([part.expand(*batch, -1) for part in parts.values()], -1)

    @torch.no_grad()
    def log_likelihoods(self, x: Tensor) -> Tensor | None:
        """Of each observation, with shape (n, *shape), for free numbers with shape (n, D); None where it is not known.

        (n, 1) where the likelihood is written as one number.
        """
        if self.log_likelihood is None:
            return None
        with in_float64():
            found = self._asked(self.log_likelihood, self._constrained(x.double())[0])
        return found.reshape(len(x), -1) if found.ndim < 2 else found

    @property
    def coordinate_names(self) -> list[str]:
        found = []
        for name, each in self.declared.items():
            found += names_of_free(name, each.free_shape, each.is_free)
        return found

    def dims_of_terms(self, shape: tuple[int, ...]) -> list[str] | None:
        return dims_of_terms(shape, {} if self.data is None else self.data.shapes, self.dims, self.coords)

    def fingerprint(self) -> dict[str, Any]:
        """What it is made of, for checkpoints."""
        return {
            "parameters": {name: repr(parameter) for name, parameter in self.declared.items()},
            "log_joint": self.log_joint,
            "log_likelihood": self.log_likelihood,
            "prior": self.prior,
            "data": None if self.data is None else self.data.given,
        }

    @property
    def observed_data(self) -> Values:
        return {} if self.data is None else self.data.given

    def starting_points(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draws of the prior as free numbers, float64, with shape (n, D), where the prior is given and has any."""
        if self.prior is None:
            return None
        seed = int(torch.randint(2**62, (), generator=generator, device=getattr(generator, "device", "cpu")))
        with torch.random.fork_rng(), in_float64():  # torch's distributions take no generator
            torch.manual_seed(seed)
            try:
                values = {name: prior.sample((n,)) for name, prior in self.prior.items()}
            except NotImplementedError:
                return None
        inside = torch.stack([self.declared[name].contains(value) for name, value in values.items()]).all(0)
        free = self.free({name: value[inside] for name, value in values.items()})
        return free[free.isfinite().all(-1)]

    def _log_prob_of(self, x: Tensor) -> Tensor:
        """Of draws with shape (n, D); NaN where a matrix cannot be factorised, for which torch gives up all draws."""
        low, high = (end.to(x) for end in self.limits)
        beyond = ((x < low) | (x > high)).any(-1)
        values, log_det = self._constrained(x.clamp(low, high))
        log_det = torch.where(beyond, -torch.inf, log_det)
        for name, parameter in self.declared.items():
            is_regular = parameter.can_be_factorised(values[name])
            if is_regular is not None:
                eye = torch.eye(parameter.shape[-1], dtype=x.dtype, device=x.device)
                values[name] = torch.where(is_regular, values[name], eye)
                log_det = torch.where(is_regular.flatten(1).all(-1), log_det, log_det + torch.nan)
        try:
            with in_float64():
                return self._log_joint(values) + log_det
        except torch.linalg.LinAlgError:
            if len(x) == 1:
                return log_det + torch.nan
            return torch.cat([self._log_prob_of(half) for half in x.tensor_split(2)])

    def _constrained(self, x: Tensor) -> tuple[Values, Tensor]:
        found = {name: each.constrain(x[..., self.columns[name]]) for name, each in self.declared.items()}
        return {name: value for name, (value, _) in found.items()}, sum(log_det for _, log_det in found.values())

    def _log_joint(self, values: Values) -> Tensor:
        if self.log_joint is not None:
            return self._asked(self.log_joint, values)
        terms = [_summed(prior.log_prob(dict.__getitem__(values, name))) for name, prior in self.prior.items()]
        if self.log_likelihood is not None:
            terms.append(_summed(self._asked(self.log_likelihood, values)))
        return sum(terms)

    def _asked(self, function: Callable[..., Tensor], values: Values) -> Tensor:
        data = [] if self.data is None else [self.data.for_functions()]
        if self.batched:
            found = function(values, *data)
            if not isinstance(found, Tensor):
                function = "log_joint" if function is self.log_joint else "log_likelihood"
                raise InputError(
                    f"{function} of {type(self).__name__} must return a tensor, got {type(found).__name__}."
                )
            return found
        keys_read = values.keys_read if isinstance(values, ReadValues) else set()
        unread = {name: dict.__getitem__(values, name) for name in dict.keys(values)}
        return torch.vmap(lambda one: function(ReadValues(one, keys_read), *data))(unread)

    def _try(self) -> None:
        """What is wrong with functions, data and names shows at two points, in their own words."""
        name = type(self).__name__
        x = 0.1 * torch.randn(
            2, self.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu"
        )
        function = "log_joint" if self.log_joint is not None else "log_likelihood"
        values, _ = self._constrained(x)
        read = ReadValues(values, set())
        found = self._tried(function, read)
        if found.shape != (2,):
            raise InputError(
                f"{function} of {name} must return a number for each draw, with shape (2,) for two of them, got "
                f"{tuple(found.shape)}: values come with the draws first, so sum over the other dimensions, as in "
                ".sum(-1), or say batched=False."
            )
        if found.isnan().all():
            self._refuse_missing(f"{function} of {name} is NaN")
        if not found.isfinite().any():
            self._refuse_infinite(f"{function} of {name} is not finite", lambda: self._log_joint(values))
        self._check_read(read)
        alone = self._tried(function, {key: value[:1] for key, value in values.items()})
        mixed = f"{function} of {name} mixes draws, which come first: "
        way = "Give other dimensions their place, as in p['mu'][:, None], sum over these only, or say batched=False."
        if alone.shape != (1,):
            raise InputError(f"{mixed}of one draw it makes {alone.numel()}. {way}")
        if not torch.allclose(alone, found[:1], rtol=1e-6, atol=1e-8, equal_nan=True):
            raise InputError(
                f"{mixed}it gives {float(found[0]):.6g} for one beside another, and {float(alone[0]):.6g} for it "
                f"alone. {way}"
            )
        if self.log_joint is not None and self.log_likelihood is not None:
            terms = self._asked_once("log_likelihood", lambda: self._asked(self.log_likelihood, values), values)
            if terms.isnan().any():
                self._refuse_missing(f"log_likelihood of {name} is NaN")

    def _check_read(self, read: ReadValues) -> None:
        """Refuse parameters that no density has, and warn of those that have a prior and nothing else."""
        unread = ", ".join(key for key in self.declared if key not in read.keys_read)
        if unread and self.prior is None:
            raise InputError(f"log_joint of {type(self).__name__} never reads {unread}: is a name misspelled?")
        if unread and self.log_likelihood is not None:
            warnings.warn(
                f"log_likelihood of {type(self).__name__} never reads {unread}, of which the data then say nothing: is "
                "a name misspelled?",
                stacklevel=4,
            )

    def _tried(self, function: str, values: Values) -> Tensor:
        return self._asked_once(function, lambda: self._log_joint(values), values)

    def _is_positive_somewhere(self) -> bool:
        """Whether any of many points, far and near and from the prior, has a density."""
        generator = torch.Generator().manual_seed(0)
        wide = 3 * torch.randn(NUM_TRIED, self.dim, generator=generator, dtype=torch.float64, device="cpu")
        known = self.starting_points(NUM_TRIED, generator)
        return bool(self._log_prob_of(wide if known is None else torch.cat([wide, known])).isfinite().any())

    def _asked_once(self, function: str, ask: Callable[[], Tensor], values: Values) -> Tensor:
        try:
            with in_float64(validates=True):
                return ask()
        except KeyError as error:
            raise InputError(
                f"{function} of {type(self).__name__} asks for {error}, which is neither a parameter "
                f"({', '.join(self.declared)}) nor among the data."
            ) from error
        except InputError:
            raise
        except Exception as error:  # of the user's own function, which this says
            if "within the support" in str(error) and self._is_positive_somewhere():
                with in_float64():  # data that not all parameters allow, as an unknown bound does
                    return ask()
            if "invalid values" in str(error):
                self._refuse_missing(f"{function} of {type(self).__name__} fails", error)
                self._refuse_infinite(f"{function} of {type(self).__name__} fails", ask, error)
            shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in values.items())
            data = "" if self.data is None else f"; {'' if self.data.is_single else 'data '}{self.data}"
            is_of_shapes = self.batched and "size" in str(error)
            way = " (Values come with the draws first; for functions of one draw say batched=False.)" * is_of_shapes
            is_plain = isinstance(error, RuntimeError | ValueError | TypeError | IndexError | AttributeError)
            kind = "" if is_plain else f"{type(error).__name__}: "
            raise InputError(
                f"{function} of {type(self).__name__} fails at values of shapes {shapes}{data}: "
                f"{kind}{' '.join(str(error).split())[:300]}{way}"
            ) from error

    def _refuse_missing(self, what: str, error: Exception | None = None) -> None:
        """Raise InputError where data are NaN, which functions that fail have not left out."""
        if self.data is not None and (missing := self.data.missing):
            raise InputError(
                f"{missing}, and {what}: data must be numbers where they are read. Leave missing observations out, as "
                "in y[~y.isnan()], or give each a parameter."
            ) from error

    def _refuse_infinite(self, what: str, ask: Callable[[], Tensor], error: Exception | None = None) -> None:
        """The same where data are infinite, and with other numbers in their place all were well."""
        if self.data is None or not (infinite := self.data.infinite):
            return
        given, self.data = self.data, self.data.with_others_for_infinite()
        try:
            with in_float64(validates=True):
                is_well = bool(ask().isfinite().all())
        except Exception:
            is_well = False
        finally:
            self.data = given
        if is_well:
            raise InputError(f"{infinite}, and {what}: data must be finite where they are read.") from error


def _summed(terms: Tensor) -> Tensor:
    """Over all dimensions but the draws'."""
    return terms if terms.ndim < 2 else terms.flatten(1).sum(-1)
