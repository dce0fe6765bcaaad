"""A log-Gaussian Cox process on a grid, and the Finnish pines."""

import csv
import math
from importlib import resources

import torch
from torch import Tensor

from diffsampler.errors import check_count
from diffsampler.target import Target

__all__ = ["CoxProcess"]

SIGNAL_VARIANCE, LENGTH_SCALE = 1.91, 1 / 33
# Of the plot, in metres.
WINDOW = ((-5.0, 5.0), (-8.0, 2.0))


class CoxProcess(Target):
    """The posterior of the log-intensity of 126 pine saplings, on a grid of cells over the unit square.

    With f ~ N(mu, K), mu = log 126 - 1.91 / 2, K_ij = 1.91 exp(-33 |s_i - s_j|) for cell centres s at distances of 1 /
    size, and y_i trees in cell i of area a:

        log R(f) = sum_i (y_i f_i - a exp(f_i)) + log N(f; mu, K)

    The Poisson likelihood goes without -log y_i!, as in the literature. On the 40 x 40 grid log Z = 501.75 +- 0.15
    (audited by tempered SMC); figures around 512.5 in papers are of a file that has one tree twice.

    References:
        Log Gaussian Cox processes, Moller, Syversveen & Waagepetersen, 1998.
        Annealed Flow Transport Monte Carlo, Arbel, Matthews & Doucet, 2021, arXiv:2102.07501 (as a benchmark).
        The trees: recorded by S. Kellomaki, prepared by A. Penttinen; `finpines` in the R package spatstat.data.

    Arguments:
        size: cells in each direction; the dimension D is its square.
    """

    def __init__(self, size: int = 40) -> None:
        check_count("size", size, minimum=2)
        super().__init__(size**2)
        self.area = 1 / self.dim
        trees = _trees()
        self.mean = math.log(len(trees)) - 0.5 * SIGNAL_VARIANCE
        cell = (trees * size).long().clamp(max=size - 1)
        counts = torch.zeros(size, size, dtype=torch.float64)
        counts.index_put_((cell[:, 0], cell[:, 1]), torch.ones(len(trees), dtype=torch.float64), accumulate=True)
        line = torch.arange(size, dtype=torch.float64) / size
        centres = torch.cartesian_prod(line, line)
        covariance = SIGNAL_VARIANCE * (-torch.cdist(centres, centres) / LENGTH_SCALE).exp()
        factor = torch.linalg.cholesky(covariance)
        self._log_normaliser = float(-factor.diagonal().log().sum() - 0.5 * self.dim * math.log(2 * math.pi))
        self.register_buffer("counts", counts.flatten(), persistent=False)
        self.register_buffer("precision", torch.cholesky_inverse(factor), persistent=False)
        if size == 40:
            self.log_z = 501.75

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_prob(x, self._pull(x))

    @torch.no_grad()
    def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pull = self._pull(x)
        return self._log_prob(x, pull), self.counts.to(x.dtype) - self.area * x.exp() - pull

    def _pull(self, x: Tensor) -> Tensor:
        """K^-1 (f - mu), with the shape of x."""
        return (x - self.mean) @ self.precision.to(x.dtype)

    def _log_prob(self, x: Tensor, pull: Tensor) -> Tensor:
        likelihood = (self.counts.to(x.dtype) * x - self.area * x.exp()).sum(-1)
        return likelihood - 0.5 * ((x - self.mean) * pull).sum(-1) + self._log_normaliser


def _trees() -> Tensor:
    """Positions in the unit square, float64, with shape (126, 2)."""
    with resources.files("targets").joinpath("finpines.csv").open() as file:
        rows = [[float(value) for value in row] for row in csv.reader(file) if not row[0].startswith(("#", "x"))]
    low, high = torch.tensor(WINDOW, dtype=torch.float64).T
    return (torch.tensor(rows, dtype=torch.float64) - low) / (high - low)
