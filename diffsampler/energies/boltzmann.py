"""log R(x) = -E(x) / kT, of an energy in arrays or in torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsampler.energies.base import Energy
from diffsampler.energies.forces import check_forces
from diffsampler.energies.workers import Workers
from diffsampler.errors import check_count, check_positive, warn_of


class BoltzmannWeight:
    """log R(x) = -E(x) / kT of an energy in arrays, as a function of tensors.

    Where single configurations raise, values are NaN; a first batch of which all raise passes on what they raise.

    Arguments:
        energy: of configurations with shape (n, D).
        temperature: kT, in units of the energy.
        workers: in how many processes to evaluate it; 0 for this one.
        check: whether its forces are compared with differences, once, at the first points where they can be.

    Attributes:
        asked: what it is called in warnings.
    """

    asked: str = "The energy of a configuration"

    def __init__(self, energy: Energy, temperature: float = 1.0, workers: int = 0, check: bool = True) -> None:
        self.energy = energy
        self.temperature = check_positive("temperature", temperature)
        self._evaluate = Workers(energy, workers).evaluate if check_count("workers", workers, 0) else energy.evaluate
        self._must_check = check and energy.has_forces
        self._has_answered = self._has_warned = False

    def check_at(self, x: np.ndarray) -> None:
        """Compare forces with differences at points with shape (n, D), in this process, unless it has been done.

        Raises:
            InputError: if they differ.
        """
        if self._must_check:
            self._must_check = not check_forces(self.energy.evaluate, x)

    def __call__(self, x: Tensor) -> Tensor:
        """log R(x), float64, with shape (*), for x with shape (*, D); gradients reach x where forces are known."""
        if torch.is_grad_enabled() and x.requires_grad and self.energy.has_forces:
            return _WithForces.apply(x, self)
        return self._ask(x, with_forces=False)[0]

    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log R(x) and its gradient, float64, with shapes (*) and (*, D)."""
        return self._ask(x, with_forces=True)

    def _ask(self, x: Tensor, with_forces: bool) -> tuple[Tensor, Tensor | None]:
        rows = x.detach().reshape(-1, x.shape[-1]).to("cpu", torch.float64, copy=True).numpy()
        if not len(rows):
            return x.new_zeros(x.shape[:-1], dtype=torch.float64), torch.zeros_like(x, dtype=torch.float64)
        found = self._evaluate(rows, with_forces)
        if found.all_failed and not self._has_answered:
            raise found.failure
        self._has_answered = True
        if found.failure is not None and not self._has_warned:
            self._has_warned = True
            warn_of(f"{self.asked} has raised {type(found.failure).__name__}", found.failure)
        usable = np.isfinite(found.energy)
        if with_forces and self._must_check and usable.any():
            self.check_at(rows[usable])
        log_prob = torch.from_numpy(-found.energy).to(x.device).reshape(x.shape[:-1]) / self.temperature
        if not with_forces:
            return log_prob, None
        return log_prob, torch.from_numpy(found.forces).to(x.device).reshape(x.shape) / self.temperature


class TorchBoltzmannWeight:
    """log R(x) = -E(x) / kT of an energy in torch, which autograd follows.

    Arguments:
        energy: of tensors with shape (n, D), or (D) unless `batched`.
        temperature: kT, in units of the energy.
        batched: whether it takes many configurations at once; if not, those that raise are NaN.

    Attributes:
        asked: what it is called in warnings.
    """

    asked: str = "The energy of a configuration"

    def __init__(self, energy: Callable[[Tensor], Tensor], temperature: float = 1.0, batched: bool = True) -> None:
        self.energy, self.batched = energy, batched
        self.temperature = check_positive("temperature", temperature)
        self._has_answered = self._has_warned = False

    def __call__(self, x: Tensor) -> Tensor:
        """log R(x), with shape (*), for x with shape (*, D)."""
        rows = x.reshape(-1, x.shape[-1])
        energy = self.energy(rows) if self.batched else self._one_by_one(rows)
        return (-energy / self.temperature).reshape((*x.shape[:-1], *energy.shape[1:]))

    def _one_by_one(self, rows: Tensor) -> Tensor:
        values, failure = [], None
        for row in rows:
            try:
                value = self.energy(row)
                # A number in a branch of its own, such as NaN where a configuration makes no sense.
                value = value if isinstance(value, Tensor) else 0 * row.sum() + float(value)
                values.append(value.reshape(()))
                self._has_answered = True
            except Exception as error:
                values.append(row.sum() * torch.nan)
                failure = failure or error
        if failure is not None and not self._has_answered:
            raise failure
        if failure is not None and not self._has_warned:
            self._has_warned = True
            warn_of(f"{self.asked} has raised {type(failure).__name__}", failure)
        return torch.stack(values) if values else rows.sum(-1)


class _WithForces(torch.autograd.Function):
    """Values whose gradient is a score that is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: BoltzmannWeight) -> Tensor:
        log_prob, score = weight.log_prob_and_score(x)
        ctx.save_for_backward(score.to(x.dtype))
        return log_prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (score,) = ctx.saved_tensors
        return gradient.unsqueeze(-1).to(score.dtype) * score, None
