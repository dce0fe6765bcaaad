"""Several processes side by side: on angles and reals, say."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from diffsampler.errors import InputError
from diffsampler.parts import make_part
from diffsampler.priors import ProductPrior
from diffsampler.processes.base import Process
from diffsampler.processes.torus import Torus
from diffsampler.processes.variance_preserving import VariancePreserving
from diffsampler.spaces import Product, Space, as_space
from diffsampler.spaces.kernels import ProductKernel


class ProductProcess(Process):
    """A process of the first coordinates, another one of the next, and so on, under one control.

    Without control they are independent: kernels, prior and reference are products of theirs.

    Arguments:
        space: a `Product` of spaces that are each of angles or of reals.
        angles: makes the process of each space of angles.
        reals: makes the process of each space of reals; of positions alone.
    """

    def __init__(
        self,
        space: Space | int,
        angles: Callable[[Space], Process] = Torus,
        reals: Callable[[Space], Process] = VariancePreserving,
    ) -> None:
        space = as_space(space)
        spaces = space.spaces if isinstance(space, Product) else [space]
        makers = {True: ("angles", angles), False: ("reals", reals)}
        processes = []
        for part in spaces:
            if not (part.is_euclidean or part.is_periodic):
                raise InputError(f"space must be a Product of angles and of reals, got a part {part!r}.")
            name, make = makers[part.is_periodic]
            process = make_part(name, make, Process, part)
            if process.space.dim != part.dim or process.scores_destination:
                raise InputError(
                    f"{name} must make a process of positions alone, {part.dim} coordinates here, got "
                    f"{type(process).__name__} in {process.space.dim}."
                )
            processes.append(process)
        super().__init__(space, ProductPrior([process.prior for process in processes]))
        self.processes = nn.ModuleList(processes)
        for name in ("uses_score", "shares_control", "learns_backward"):
            setattr(self, name, any(getattr(process, name) for process in processes))

    @property
    def angles(self) -> list[Process]:
        """The processes of angles."""
        return [process for process in self.processes if process.space.is_periodic]

    @property
    def reals(self) -> list[Process]:
        """The processes of reals."""
        return [process for process in self.processes if process.space.is_euclidean]

    @property
    def scale(self) -> Tensor:
        return self._joined([process.scale for process in self.processes])

    def forward_kernel(self, s: Tensor, t: Tensor, x: Tensor, u: Tensor, score: Tensor | None = None) -> ProductKernel:
        parts = self._split(x, u, score)
        return ProductKernel([process.forward_kernel(s, t, *of_it) for process, *of_it in parts])

    def backward_kernel(
        self, s: Tensor, t: Tensor, y: Tensor, v: Tensor | None = None, score: Tensor | None = None
    ) -> ProductKernel:
        parts = self._split(y, v, score)
        return ProductKernel([process.backward_kernel(s, t, *of_it) for process, *of_it in parts])

    def gaussian_control(self, t: Tensor) -> tuple[Tensor, Tensor]:
        p, q = zip(*(process.gaussian_control(t) for process in self.processes), strict=True)
        return self._joined(p), self._joined(q)

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor] | None:
        marginals = [process.marginal(t) for process in self.processes]
        if any(marginal is None for marginal in marginals):
            return None
        signal, std = zip(*marginals, strict=True)
        return self._joined(signal), self._joined(std)

    def log_reference(self, t: Tensor, x: Tensor) -> Tensor:
        return sum(process.log_reference(t, part) for process, part in self._split(x))

    def _joined(self, values: list[Tensor]) -> Tensor:
        """With shape (*, D), from values of each process with shape (), (*, 1) or (*, d)."""
        pairs = zip(self.processes, values, strict=True)
        return torch.cat([value.expand(*value.shape[:-1], process.space.dim) for process, value in pairs], -1)

    def _split(self, *states: Tensor | None) -> Iterator[tuple]:
        """Each process with its share of every tensor with shape (*, D)."""
        sizes = [process.space.dim for process in self.processes]
        shares = [[None] * len(sizes) if x is None else x.split(sizes, -1) for x in states]
        return zip(self.processes, *shares, strict=True)
