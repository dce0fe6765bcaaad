"""A Stan model, by BridgeStan."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsampler.energies import EnergyOfOne
from diffsampler.errors import InputError, check_flag
from diffsampler.models.foreign_model import ForeignModel, rows_of, values_like
from diffsampler.models.named_target import Values
from diffsampler.models.stan_names import StanNames
from diffsampler.optional import import_extra

LOG_LIKELIHOOD = "log_lik"  # what Stan's users call it, and the package loo


class StanModel(ForeignModel):
    """The posterior of a Stan model on its unconstrained space, with its Jacobian and all constants.

    BridgeStan compiles the model: it needs a C++ compiler, and fetches Stan's sources at first use. `~` statements
    have their constants here; a truncation or a half distribution that is written without them, such as
    `tau ~ cauchy(0, 5)` for a positive tau, has not, in Stan itself: log Z is then short of log 2. Points are taken
    one by one, in compiled code; `workers` share them. Those that Stan rejects are of zero density, and counted.

    References:
        BridgeStan: Efficient in-memory access to the methods of a Stan model, Roualdes et al., 2023,
        https://doi.org/10.21105/joss.05236.

    Arguments:
        file: a Stan program, `.stan`, or what BridgeStan has compiled of one.
        data: by name, numbers, arrays or tensors; or a JSON file, or the JSON itself.
        model: instead of both, a `bridgestan.StanModel`.
        transformed_parameters: whether `constrain` gives these too.
        workers: in how many processes to evaluate it, which stay; 0 for this one.
        dims: for tables and ArviZ, the names of a parameter's dimensions, by its name.
        coords: the labels along a dimension, by its name.
        log_z: the log evidence, where it is known exactly.

    Attributes:
        model: the `bridgestan.StanModel`.

    Raises:
        InputError: if BridgeStan is missing, the program does not compile, or data do not fit it.
    """

    def __init__(
        self,
        file: str | None = None,
        data: str | dict[str, Any] | None = None,
        model: Any = None,
        transformed_parameters: bool = True,
        workers: int = 0,
        dims: dict[str, list[str]] | None = None,
        coords: dict[str, list[Any]] | None = None,
        log_z: float | None = None,
    ) -> None:
        if (file is None) == (model is None):
            raise InputError(
                "StanModel needs either file, a .stan file, and its data, or model, a bridgestan.StanModel."
            )
        density = _Density(file, _plain(data), model)
        num_free = density.model().param_unc_num()
        if not num_free:
            raise InputError("StanModel needs a model with parameters, and this one has none.")
        super().__init__(density, num_free, workers, dims, coords, log_z)
        self.transformed_parameters = check_flag("transformed_parameters", transformed_parameters)
        self.names = StanNames(self.model.param_names(include_tp=transformed_parameters, include_gq=False))
        self._all_names = StanNames(self.model.param_names(include_tp=True, include_gq=True))

    @property
    def model(self) -> Any:
        """The `bridgestan.StanModel`."""
        return self.fn.energy.model()

    def constrain(self, x: Tensor) -> Values:
        ask = self.model.param_constrain
        return self._values(x, self.names, lambda row: ask(row, include_tp=self.transformed_parameters))

    @property
    def coordinate_names(self) -> list[str]:
        return list(self.model.param_unc_names())

    def log_likelihoods(self, x: Tensor) -> Values | None:
        """The generated quantity `log_lik`, where the program has one."""
        if LOG_LIKELIHOOD not in self._all_names.shapes:
            return None
        ask, rng = self.model.param_constrain, self.model.new_rng(0)
        found = self._values(x, self._all_names, lambda row: ask(row, include_tp=True, include_gq=True, rng=rng))
        return {LOG_LIKELIHOOD: found[LOG_LIKELIHOOD]}

    def _values(self, x: Tensor, names: StanNames, ask: Any) -> Values:
        rows = rows_of(x)
        found = np.full((len(rows), names.num_numbers), np.nan)
        for k, row in enumerate(rows):
            try:
                found[k] = ask(row)
            except RuntimeError:  # Stan rejects it, as it does where its density is asked for
                continue
        return values_like(x, names.split(found))


class _Density(EnergyOfOne):
    """Minus the log-density; where it is sent to another process, the model is made there again."""

    def __init__(self, file: str | None, data: str | dict[str, Any] | None, model: Any) -> None:
        self.file, self.data, self.given, self._made = file, data, model, model

    def model(self) -> Any:
        """The `bridgestan.StanModel`, made on first use."""
        if self._made is None:
            self._made = _compiled(self.file, self.data)
        return self._made

    def evaluate_one(self, x: np.ndarray, with_forces: bool) -> tuple[float, np.ndarray | None]:
        model = self.model()
        if not with_forces:
            return -model.log_density(x, propto=False, jacobian=True), None
        log_density, score = model.log_density_gradient(x, propto=False, jacobian=True)
        return -log_density, score

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "data": self.data, "model": self.given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


def _compiled(file: str, data: str | dict[str, Any] | None) -> Any:
    bridgestan = import_extra("bridgestan", "StanModel", "stan")
    path = Path(file)
    given = Path(data) if isinstance(data, str) and data.endswith(".json") else None
    for name, each in (("file", path), ("data", given)):
        if each is not None and not each.is_file():
            raise InputError(f"{name} of StanModel must be a file, and there is no {each}.")
    if path.suffix == ".stan":
        try:
            path = bridgestan.compile_model(path)
        except RuntimeError as error:
            raise InputError(f"{path} does not compile: {_said_by_stanc(str(error))}") from error
        except (ValueError, OSError) as error:
            raise InputError(
                f"BridgeStan cannot compile {path}: it needs its C++ sources, which it fetches at first use, or in the "
                f"folder that the environment variable BRIDGESTAN names. It says: {_in_line(error)}"
            ) from error
    try:
        return bridgestan.StanModel(os.fspath(path), data, warn=False)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise InputError(f"data of StanModel do not fit {file}: {_in_line(error)}") from error


def _said_by_stanc(message: str) -> str:
    """Where the error is and what it is, of all that make prints; of C++, the first error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    where = next((k for k, line in enumerate(lines) if " error in '" in line), None)
    if where is None:
        return next((line for line in lines if "error:" in line), " ".join(lines[-3:]))[:300]
    end = next((k for k in range(where, len(lines)) if lines[k].startswith("make")), len(lines))
    rules = [k for k in range(where, end) if set(lines[k]) == {"-"}]
    return f"{lines[where]} {' '.join(lines[rules[-1] + 1 if rules else where + 1 : end])}"[:500]


def _in_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said.rpartition("Exception: ")[2][:400]  # Stan's own words, without those of who called it


def _plain(data: Any) -> Any:
    """Data without tensors, which Stan's JSON does not know."""
    if not isinstance(data, Mapping):
        return data
    return {
        name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value for name, value in data.items()
    }
