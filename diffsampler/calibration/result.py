"""What a calibration has found."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffsampler.calibration.uniform import band, p_value
from diffsampler.log_z import LogZDifference, estimate_log_z
from diffsampler.report.calibration_figure import plot_calibration

LEVEL = 0.99  # of the band for all quantities together
COVER = 0.95
FEW = 20  # data sets, of which only the grossest mistakes leave the band


@dataclass(frozen=True)
class OneFit:
    """One data set: a truth drawn from the prior, data made from it, and a fit.

    Attributes:
        ranks: of the truth among draws of the posterior, by quantity.
        log_z: log evidence, with the ends of its 95 % interval.
        error: log evidence minus what it is compared with: the exact one, or the search's own, an independent estimate.
        log_ratio: log of estimated evidence times the sampler's density of the truth, over its joint density with the
            data, by one walk back; E[exp(log_ratio)] is 1 where evidences are right.
        grade: of the verdict.
        evaluations: of the target.
        reused: what was, of the fit before.
    """

    ranks: dict[str, int]
    log_z: tuple[float, float, float]
    error: tuple[float, float, float]
    log_ratio: float
    grade: str
    evaluations: int
    reused: str


@dataclass(frozen=True)
class Calibration:
    """Ranks of truths and coverage of evidences over many data sets; print it, or `plot()` it.

    Attributes:
        fits: of those data sets whose fit did not fail.
        failed: why others failed, by the number of the data set.
        num_draws: of each posterior, among which truths were ranked: ranks go from 0 to that.
        is_exact: whether evidences are compared with exact ones.
    """

    fits: list[OneFit]
    failed: dict[int, str]
    num_draws: int
    is_exact: bool

    @cached_property
    def ranks(self) -> dict[str, np.ndarray]:
        """Of the truth in each data set, by quantity, each with shape (n)."""
        return {name: np.array([one.ranks[name] for one in self.fits]) for name in self.fits[0].ranks}

    @cached_property
    def p_values(self) -> dict[str, float]:
        """The chance of ranks as far from uniform as these, by quantity (`diffsampler.calibration.uniform`)."""
        return {name: p_value(ranks, self.num_draws) for name, ranks in self.ranks.items()}

    @property
    def is_uniform(self) -> bool:
        """Whether ranks of all quantities are inside of a band that holds for all of them together at 99 %."""
        return not self._outside

    @property
    def num_covered(self) -> int:
        """How many intervals of the evidence with two ends hold what it is compared with."""
        return sum(one.error[1] <= 0 <= one.error[2] for one in self.fits if math.isfinite(one.error[2]))

    @property
    def num_claimed(self) -> int:
        """How many intervals of the evidence have two ends."""
        return sum(math.isfinite(one.error[2]) for one in self.fits)

    @property
    def evidence_ratio(self) -> LogZDifference:
        """The log of estimated over true evidence, of the ratio's mean over all data sets, with its 95 % interval.

        Below 0 where modes are missed. It knows no exact evidence, only that truths are draws of their posteriors. As
        of all weights, a heavy tail leaves the interval without an upper end: a sampler much wider than its posterior.
        """
        found = estimate_log_z(torch.tensor([one.log_ratio for one in self.fits], dtype=torch.float64))
        return LogZDifference(found.log_z, found.low, found.high)

    def plot(self) -> Figure:
        """Distribution functions of ranks with their band, and errors of the evidence."""
        inside = band(len(self.fits), self.num_draws, 1 - self._limit)
        return plot_calibration(self.ranks, inside, self._outside, [one.error for one in self.fits], self.is_exact)

    @property
    def _limit(self) -> float:
        """Of p, for each quantity by itself."""
        return (1 - LEVEL) / len(self.fits[0].ranks)

    @property
    def _outside(self) -> list[str]:
        return [name for name, p in self.p_values.items() if p <= self._limit]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        ratio = self.evidence_ratio
        return {
            "num_fits": len(self.fits),
            "failed": self.failed,
            "p_values": self.p_values,
            "is_uniform": self.is_uniform,
            "num_covered": self.num_covered,
            "num_claimed": self.num_claimed,
            "log_evidence_ratio": [end if math.isfinite(end) else None for end in vars(ratio).values()],
            "grades": dict(Counter(one.grade for one in self.fits)),
        }

    def __str__(self) -> str:
        found, n = self.p_values, len(self.fits)
        width = max(8, *map(len, found))
        lines = [f"{n} data sets, ranks among {self.num_draws} draws", f"  {'quantity':<{width}}  p of uniform ranks"]
        for name, p in found.items():
            lines.append(f"  {name:<{width}}  {p:.4f}{'' if p > self._limit else '  outside'}")
        if n < FEW:
            lines.append(f"  warning: {n} data sets are too few to tell right posteriors from wrong ones: take 100.")
        if not self.is_uniform:
            lines.append(f"  warning: ranks are not uniform (p below {self._limit:.2g}): posteriors are wrong.")
        compared = "the exact one" if self.is_exact else "that of the search"
        low, high = _expected(self.num_claimed)
        value, least, most = (math.exp(end) for end in vars(self.evidence_ratio).values())
        held, num_open = f"{self.num_covered} of {self.num_claimed}", n - self.num_claimed
        lines += [
            f"  evidence: 95 % intervals hold {compared} in {held} ({low} to {high} by chance), {num_open} are open",
            f"  estimated over true evidence, in the mean: {value:.3f} [{least:.3f}, {most:.3f}]",
        ]
        grades = ", ".join(f"{count} {grade}" for grade, count in Counter(one.grade for one in self.fits).items())
        lines.append(f"  verdicts: {grades}")
        lines += [f"  failed: data set {k}: {why}" for k, why in self.failed.items()]
        return "\n".join(lines)


def _expected(n: int) -> tuple[int, int]:
    """How many of n intervals hold the truth, with 99 % probability."""
    from scipy.stats import binom

    return int(binom.ppf(0.005, n, COVER)), int(binom.ppf(0.995, n, COVER))
