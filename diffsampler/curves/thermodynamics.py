"""Free energy, energy and heat capacity as functions of temperature."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from diffsampler.curves.log_z_curve import LogZCurve, log_z_curve
from diffsampler.errors import InputError, check_instance, check_positive
from diffsampler.families import Tempered
from diffsampler.log_z.estimate import NORMAL_97_5
from diffsampler.observables import Variance, estimate_observable
from diffsampler.report.curve_figure import plot_thermodynamics
from diffsampler.sampler import Sampler


@dataclass(frozen=True)
class Thermodynamics:
    """Of the energy E = -log R at temperatures 1 / beta, in units of Boltzmann's constant.

    Attributes:
        beta: with shape (K).
        curve: log Z; the free energy is -log Z / beta.
        energy, energy_error: the mean of E and its error, with shape (K): a standard error, made larger where few
            draws decide it, so that 1.96 of them are an interval of 95 % (`ObservableEstimate.half_width`).
        heat_capacity, heat_capacity_error: beta^2 Var E, likewise.
    """

    beta: Tensor
    curve: LogZCurve
    energy: Tensor
    energy_error: Tensor
    heat_capacity: Tensor
    heat_capacity_error: Tensor

    def plot(self) -> Figure:
        """log Z, energy and heat capacity with their 95 % intervals, against beta; those not trustworthy stand out."""
        return plot_thermodynamics(
            self.beta,
            self.curve.ends,
            (self.energy, self.energy_error),
            (self.heat_capacity, self.heat_capacity_error),
            self.curve.grades,
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
    sampler: Sampler,
    betas: Sequence[float] | Tensor,
    num_samples: int = 10_000,
    seed: int = 0,
    between: Sequence[float] | Tensor = (),
    pool: bool | None = None,
) -> Thermodynamics:
    """Free energy, energy and heat capacity at inverse temperatures beta, by weighted draws at each and its neighbours.

    Arguments:
        sampler: of a `Tempered` target, after `fit`.
        betas: with shape (K).
        num_samples, seed, pool: as in `log_z_curve`.
        between: further inverse temperatures, at which nothing is drawn.

    Raises:
        InputError: if the sampler is of something else.
    """
    check_instance("sampler", sampler, Sampler, "Sampler(Tempered(target)), after fit")
    if not isinstance(sampler.target, Tempered):
        raise InputError(f"thermodynamics is for samplers of Tempered, got one of {type(sampler.target).__name__}.")
    drawn_at, others = _read("betas", betas), _read("between", between)
    curve = log_z_curve(sampler, drawn_at.log(), num_samples, seed, between=others.log(), pool=pool)
    energies, observables = -curve.pool.statistics[:, 0], {"energy": _first, "spread": Variance(_first)}
    values: dict[str, list[list[float]]] = {name: [] for name in observables}
    for k in range(len(curve.contexts)):
        used = curve.weighted(k)
        for name, observable in observables.items():
            found = estimate_observable(name, observable, energies[used.rows].unsqueeze(-1), used.log_weight)
            values[name].append([float(found.value), float(found.half_width) / NORMAL_97_5])
    energy, spread = (torch.tensor(values[name], dtype=torch.float64) for name in observables)
    beta = torch.cat([drawn_at, others])
    capacity, capacity_error = (beta.square().unsqueeze(-1) * spread).unbind(-1)
    return Thermodynamics(beta, curve, *energy.unbind(-1), capacity, capacity_error)


def _first(column: Tensor) -> Tensor:
    return column[:, 0]


def _read(name: str, betas: Sequence[float] | Tensor) -> Tensor:
    try:
        values = [float(one) for one in betas]
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be a list of inverse temperatures, got {betas!r}.") from error
    return torch.tensor([check_positive(name, one) for one in values], dtype=torch.float64)
