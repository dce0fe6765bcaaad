"""The forms that energies of users have: NumPy or torch, one configuration or many, forces apart, together or none."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsampler.energies.base import Energy, EnergyOfOne, Evaluated, far_out
from diffsampler.energies.forces import check_forces
from diffsampler.errors import InputError

TOGETHER = "To return energy and forces together, say forces=True."


class Form(ABC):
    """How a function of the user's is asked, for points of the kind that it takes.

    Attributes:
        has_forces: whether it knows its forces.
        by_autograd: whether they are autograd's.
    """

    has_forces: bool = True
    by_autograd: bool = False

    @abstractmethod
    def __call__(self, points: Any, with_forces: bool) -> tuple[Any, Any]:
        """What it says is the energy, and what it says are the forces."""


class Alone(Form):
    """An energy without forces."""

    has_forces = False

    def __init__(self, energy: Callable[[Any], Any]) -> None:
        self.energy = energy

    def __call__(self, points: Any, with_forces: bool) -> tuple[Any, Any]:
        return self.energy(points), None


class Apart(Form):
    """An energy, and forces by another function."""

    def __init__(self, energy: Callable[[Any], Any], forces: Callable[[Any], Any]) -> None:
        self.energy, self.forces = energy, forces

    def __call__(self, points: Any, with_forces: bool) -> tuple[Any, Any]:
        again = points.clone() if isinstance(points, Tensor) else points.copy()
        return self.energy(points), self.forces(again) if with_forces else None


class Together(Form):
    """An energy that returns its forces with it."""

    def __init__(self, energy: Callable[[Any], tuple[Any, Any]]) -> None:
        self.energy = energy

    def __call__(self, points: Any, with_forces: bool) -> tuple[Any, Any]:
        both = self.energy(points)
        if not isinstance(both, tuple | list) or len(both) != 2:
            raise InputError(f"energy must return (energy, forces), as forces=True says, got {type(both).__name__}.")
        return both[0], both[1]


class Differentiated(Alone):
    """An energy in torch, and forces by autograd."""

    has_forces = True
    by_autograd = True

    def __call__(self, points: Tensor, with_forces: bool) -> tuple[Any, Any]:
        if not with_forces:
            return self.energy(points), None
        with torch.inference_mode(False), torch.enable_grad():
            points.requires_grad_()
            energy = self.energy(points.clone())
            if not isinstance(energy, Tensor):
                raise InputError(f"energy must return a tensor, got {type(energy).__name__}. {TOGETHER}")
            (gradient,) = torch.autograd.grad(energy.sum(), points)
        return energy, -gradient


class Tensors(Form):
    """A form that is given tensors."""

    def __init__(self, form: Form) -> None:
        self.form, self.has_forces, self.by_autograd = form, form.has_forces, form.by_autograd

    def __call__(self, points: np.ndarray, with_forces: bool) -> tuple[Any, Any]:
        return self.form(torch.from_numpy(points), with_forces)


class EnergyOfMany(Energy):
    """A function that takes many configurations at once."""

    def __init__(self, form: Form) -> None:
        self.form, self.has_forces = form, form.has_forces

    def evaluate(self, x: np.ndarray, with_forces: bool) -> Evaluated:
        with far_out():
            energy, forces = self.form(x.copy(), with_forces)
        energy = _as_array("energy", energy)
        if energy.shape != (len(x),):
            raise InputError(
                f"energy must return one number for each configuration, shape {(len(x),)} for {x.shape}, got "
                f"{energy.shape}. If it takes one configuration at a time, say batched=False."
            )
        return Evaluated(energy, _as_forces(forces, x) if with_forces else None)


class FunctionOfOne(EnergyOfOne):
    """A function that takes one configuration."""

    def __init__(self, form: Form) -> None:
        self.form, self.has_forces = form, form.has_forces

    def evaluate_one(self, x: np.ndarray, with_forces: bool) -> tuple[float, np.ndarray | None]:
        energy, forces = self.form(x.copy(), with_forces)
        energy = _as_array("energy", energy)
        if energy.size != 1:
            raise InputError(
                f"energy must return one number for a configuration of shape {x.shape}, got shape {energy.shape}. If "
                "it takes many configurations at once, say batched=True."
            )
        return float(energy.reshape(())), _as_forces(forces, x) if with_forces else None


def read_energy(
    energy: Callable, forces: Callable | bool | None, batched: bool, points: np.ndarray
) -> tuple[Energy, bool]:
    """What an energy is, found out by asking it, and whether autograd follows it.

    Arguments:
        energy: takes arrays or tensors, with shape (D), or (n, D) if `batched`.
        forces: a function like it, True where it returns both, or None.
        batched: whether it takes many configurations at once.
        points: to try it with, with shape (n, D).

    Raises:
        InputError: if it returns what is no energy, or takes what `batched` says it does not.
        Exception: what it raises itself, where it answers nowhere.
    """
    if forces is True:
        form: Form = Together(energy)
    elif callable(forces):
        form = Apart(energy, forces)
    elif forces is None or forces is False:
        form = Alone(energy)
    else:
        raise InputError(f"forces must be a function, True where energy returns both, or None, got {forces!r}.")
    kind, other = (EnergyOfMany, FunctionOfOne) if batched else (FunctionOfOne, EnergyOfMany)
    # Plain arithmetic works in either kind of points: by autograd it has forces.
    forms = [form, Tensors(form)] if form.has_forces else [Tensors(Differentiated(energy)), form, Tensors(form)]
    found, failures = _first_that_answers([kind(each) for each in forms], points)
    if found is not None:
        return found, found.form.by_autograd
    failure = _telling(failures)
    if not isinstance(failure, InputError) and _first_that_answers([other(each) for each in forms], points)[0]:
        many, one = "many configurations at once, with shape (n, D)", "one configuration, with shape (D)"
        raise InputError(
            f"energy fails when it is given {many if batched else one}, but takes {one if batched else many}: say "
            f"batched={not batched}. It raises {type(failure).__name__}: {failure}"
        )
    raise failure


def _first_that_answers(tries: list[Energy], points: np.ndarray) -> tuple[Energy | None, list[Exception]]:
    """The first of these that has an energy somewhere, None without; and what they have raised until then."""
    failures: list[Exception] = []
    # Of a function of one configuration, as many as coordinates could not be told from these.
    together = 2 if points.shape[-1] == 3 else 3
    for energy in tries:
        for k in range(
            max(1, len(points) - together + 1)
        ):  # far out, or near the centre, it may fail for reasons of its own
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch, at NumPy code that is given tensors
                    found = energy.evaluate(points[k : k + together], energy.has_forces)
                if found.all_failed:
                    raise found.failure
                if energy.form.by_autograd:  # which does not see what leaves torch, as math.exp(x[0]) does
                    check_forces(energy.evaluate, points)
                return energy, failures
            except Exception as error:
                failures.append(error)
                if isinstance(error, InputError):
                    break
    return None, failures


def _telling(failures: list[Exception]) -> Exception:
    """Of what a function has raised, that which is no consequence of being given the wrong kind of points."""
    wrong_kind = ("Tensor", "ndarray", "requires grad", "does not require grad", "unexpected keyword")
    own = [error for error in failures if not any(word in str(error) for word in wrong_kind)]
    mistakes = [error for error in failures if isinstance(error, InputError)]
    return next((error for error in own if not isinstance(error, InputError)), (mistakes or failures)[-1])


def _as_array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, tuple):
        raise InputError(f"{name} must return one number for each configuration, got a tuple. {TOGETHER}")
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        if value is None:  # which is NaN to NumPy
            raise TypeError
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must return numbers, got {type(value).__name__}.") from error


def _as_forces(forces: Any, x: np.ndarray) -> np.ndarray:
    array = _as_array("forces", forces)
    if array.size != x.size:
        raise InputError(f"forces must be {x.size} numbers for {x.shape}, got shape {array.shape}.")
    return array.reshape(x.shape)
