"""Bent Gaussians: each coordinate normal given those before it, with quadratic means and log-linear widths."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffsampler.baseline.pursuit import Pursuit
from diffsampler.baseline.regression import Conditionals, Fit, fit_conditional, fit_conditionals
from diffsampler.baseline.tails import Tail, fit_tail

EIGENBASIS_UP_TO = 16  # dimensions: beyond, trying a second basis costs more than it brings
FITTED_TO, ORDERED_BY = 4000, 1000  # points are enough to tell which coordinates depend on which


@dataclass(frozen=True)
class CurvedMap:
    """x = loc + basis y, where y_o(i) = m_i + s_i z_i, in an order o.

    m_i and s_i are functions of those y that come before: m_i quadratic, log s_i linear. A funnel is the image of a
    standard normal z, and so is a banana, or a chain of them. Both directions and the log-determinant are in closed
    form.

    References:
        Transport map accelerated Markov chain Monte Carlo, Parno & Marzouk, 2018: triangular polynomial maps.

    Attributes:
        loc: with shape (D).
        basis: invertible, with shape (D, D).
        order: the coordinates of y, first to last.
        fits: of each in that order, given those before it. Without any, y is z.
        tail: what z goes through first.
    """

    loc: Tensor
    basis: Tensor
    order: tuple[int, ...]
    fits: tuple[Fit, ...]
    tail: Tail | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "inverse_basis", torch.linalg.inv(self.basis))
        object.__setattr__(self, "log_det_basis", torch.linalg.slogdet(self.basis).logabsdet)
        object.__setattr__(self, "_conditionals", Conditionals(self.fits) if self.fits else None)

    @classmethod
    def affine(cls, loc: Tensor, matrix: Tensor) -> "CurvedMap":
        """x = loc + matrix z."""
        return cls(loc, matrix, (), ())

    def to(self, device: torch.device) -> "CurvedMap":
        """The same on a device."""
        if self.loc.device == device:
            return self
        fits = tuple(
            replace(fit, **{name: getattr(fit, name).to(device) for name in ("pairs", "mean", "log_scale")})
            for fit in self.fits
        )
        return replace(self, loc=self.loc.to(device), basis=self.basis.to(device), fits=fits)

    @classmethod
    def from_dict(cls, fits: Iterable[dict[str, Any]], tail: dict[str, Any] | None, **rest: Any) -> "CurvedMap":
        """What `dataclasses.asdict` gave."""
        return cls(fits=tuple(Fit(**fit) for fit in fits), tail=None if tail is None else Tail(**tail), **rest)

    @property
    def is_affine(self) -> bool:
        """Whether it is `loc + basis z` as it stands."""
        return not self.fits and self.tail is None

    @property
    def is_bent(self) -> bool:
        """Whether it is more than affine."""
        return self.tail is not None or any(fit.is_bent for fit in self.fits)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dz|, with shapes (n, D) and (n), for z with shape (n, D)."""
        log_det = self.log_det_basis.expand(len(z))
        if self.tail is not None:
            z, stretched = self.tail.forward(z)
            log_det = log_det + stretched
        if not self.fits:
            return self.loc + z @ self.basis.T, log_det
        ordered, widened = self._conditionals.forward(z, z[:, :0])
        y = torch.empty_like(ordered)
        y[:, list(self.order)] = ordered
        return self.loc + y @ self.basis.T, log_det + widened

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dx/dz|, with shapes (n, D) and (n), for x with shape (n, D)."""
        y, log_det = (x - self.loc) @ self.inverse_basis.T, self.log_det_basis.expand(len(x))
        if self.fits:
            y, widened = self._conditionals.inverse(y[:, list(self.order)], y[:, :0])
            log_det = log_det + widened
        if self.tail is None:
            return y, log_det
        z, stretched = self.tail.inverse(y)
        return z, log_det + stretched


def fit_map(x: Tensor, weight: Tensor | None = None) -> CurvedMap:
    """The map under which weighted points x, with shape (n, D), are most nearly standard normal.

    A bend is taken where the points speak for it by more than its parameters cost (BIC). Coordinates about which the
    others say most come last. The axes and the principal axes are tried.
    """
    weight = torch.ones(len(x), dtype=x.dtype, device=x.device) if weight is None else weight.to(x)
    if len(x) > FITTED_TO:
        some = torch.arange(FITTED_TO, device=x.device) * len(x) // FITTED_TO  # evenly: the light ones are the tails
        x, weight = x[some], weight[some]
    weight = weight / weight.sum()
    loc = weight @ x
    std = (weight @ (x - loc).square()).sqrt()
    # Coordinates that do not move at all keep a map that can be inverted.
    std = std.clamp(min=1e-300) + torch.finfo(x.dtype).eps * loc.abs()
    bases = [torch.diag(std)]
    if 1 < x.shape[1] <= EIGENBASIS_UP_TO:
        whitened = (x - loc) / std * weight.sqrt().unsqueeze(-1)
        values, vectors = torch.linalg.eigh(whitened.T @ whitened)
        bases.append(std.unsqueeze(-1) * vectors * values.clamp(min=1e-14).sqrt())
    found = [_fit_in(x, weight, loc, basis) for basis in bases]
    if x.shape[1] > 1:
        # Group effects tell the logarithm of their scale: what most is said about may be what the others hang on.
        found.append(_fit_in(x, weight, loc, bases[0], found[0][1].order[::-1]))
    best = max(found, key=lambda pair: pair[0])[1]
    if best.is_bent:
        return best
    # The same in one product instead of D steps; about the origin, since far from it differences lose digits.
    images = replace(best, loc=torch.zeros_like(loc)).forward(torch.eye(x.shape[1] + 1)[:, 1:].to(x))[0]
    return CurvedMap.affine(loc + images[0], (images[1:] - images[0]).T)


def _fit_in(
    x: Tensor, weight: Tensor, loc: Tensor, basis: Tensor, order: Sequence[int] | None = None
) -> tuple[float, CurvedMap]:
    """A map in the given axes, and its log-likelihood a point less the price of its parameters."""
    y = torch.linalg.solve(basis, (x - loc).T).T
    if order is None:
        some = weight.topk(min(ORDERED_BY, len(weight))).indices
        order = _order(y[some], weight[some] / weight[some].sum())
    y = y[:, list(order)]
    gained, fits = fit_conditionals(y, 0, weight)
    return gained - float(torch.linalg.slogdet(basis).logabsdet), CurvedMap(loc, basis, tuple(order), fits)


def _order(y: Tensor, weight: Tensor) -> list[int]:
    """Coordinates by what the others say about them, least first."""
    dim = y.shape[1]
    if dim == 1:
        return [0]
    pursuit, gains = Pursuit(y, weight), []
    for i in range(dim):
        others = [j for j in range(dim) if j != i]
        mean = weight @ y[:, i]
        alone = -0.5 * math.log(float(weight @ (y[:, i] - mean).square()) + 1e-300) - 0.5
        gains.append(fit_conditional(y, i, others, weight, pursuit)[0] - alone)
    return sorted(range(dim), key=gains.__getitem__)


def with_tail(found: CurvedMap, x: Tensor) -> CurvedMap:
    """The same map after the tail that points x, with shape (n, D), ask for, if they do."""
    weight = x.new_full((len(x),), 1 / len(x))
    return replace(found, tail=fit_tail(found.inverse(x)[0], weight))
