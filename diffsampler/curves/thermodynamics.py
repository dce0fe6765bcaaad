"""Free energy, energy and heat capacity as functions of temperature."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.curves.log_z_curve import LogZCurve, log_z_curve
from diffsampler.errors import InputError, check_instance, check_positive
from diffsampler.families import Tempered
from diffsampler.observables import Variance
from diffsampler.report.curve_figure import plot_thermodynamics
from diffsampler.sampler import Sampler


@dataclass(frozen=True)
class Thermodynamics:
    """Of the energy E = -log R at temperatures 1 / beta, in units of Boltzmann's constant.

    Attributes:
        beta: with shape (K).
        curve: log Z; the free energy is -log Z / beta.
        energy, energy_error: the mean of E and its standard error, with shape (K).
        heat_capacity, heat_capacity_error: beta^2 Var E, likewise.
    """

    beta: Tensor
    curve: LogZCurve
    energy: Tensor
    energy_error: Tensor
    heat_capacity: Tensor
    heat_capacity_error: Tensor

    def plot(self) -> Figure:
        """log Z, energy and heat capacity with their errors, against beta."""
        return plot_thermodynamics(
            self.beta,
            self.curve.log_z,
            (self.energy, self.energy_error),
            (self.heat_capacity, self.heat_capacity_error),
        )

    def __str__(self) -> str:
        lines = [f"{'beta':>10}  {'log Z':>28}  {'energy':>20}  {'heat capacity':>20}  verdict"]
        for k, beta in enumerate(self.beta.tolist()):
            one = self.curve.estimates[k]
            cells = (
                f"{one.log_z:.4f} [{one.low:.4f}, {one.high:.4f}]",
                f"{self.energy[k]:.4f} +- {self.energy_error[k]:.4f}",
                f"{self.heat_capacity[k]:.4f} +- {self.heat_capacity_error[k]:.4f}",
            )
            lines.append(f"{beta:>10.4g}  {cells[0]:>28}  {cells[1]:>20}  {cells[2]:>20}  {self.curve.grades[k]}")
        return "\n".join(lines)


def thermodynamics(
    sampler: Sampler, betas: Sequence[float] | Tensor, num_samples: int = 10_000, seed: int = 0
) -> Thermodynamics:
    """Free energy, energy and heat capacity at inverse temperatures beta, by weighted draws at each.

    Arguments:
        sampler: of a `Tempered` target, after `fit`.
        betas: with shape (K).
        num_samples, seed: as in `log_z_curve`.

    Raises:
        InputError: if the sampler is of something else.
    """
    check_instance("sampler", sampler, Sampler, "Sampler(Tempered(target)), after fit")
    if not isinstance(sampler.target, Tempered):
        raise InputError(f"thermodynamics is for samplers of Tempered, got one of {type(sampler.target).__name__}.")
    if not isinstance(betas, Tensor | Sequence):
        raise InputError(f"betas must be a list of inverse temperatures, got {betas!r}.")
    beta = torch.tensor([check_positive("betas", float(one)) for one in betas], dtype=torch.float64)
    target = sampler.target.target

    def energy(x: Tensor) -> Tensor:
        return -target.log_prob(x)

    asked = {"energy": energy, "spread": Variance(energy)}
    curve = log_z_curve(sampler, beta.log(), num_samples, seed, asked)
    values = {
        name: torch.tensor(
            [[float(part) for part in (found.value, found.standard_error)] for found in _named(curve, name)],
            dtype=torch.float64,
        ).unbind(-1)
        for name in asked
    }
    variance, error = values["spread"]
    return Thermodynamics(beta, curve, *values["energy"], beta.square() * variance, beta.square() * error)


def _named(curve: LogZCurve, name: str) -> list:
    return [one.observables[name] for one in curve.assessments]
